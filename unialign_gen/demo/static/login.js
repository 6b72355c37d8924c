const form = document.querySelector("#login");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("login", { method: "POST", body: new FormData(form) });
  if (answer.ok) location.reload();
  else document.querySelector("#error").textContent = "Name or password is not right.";
});
