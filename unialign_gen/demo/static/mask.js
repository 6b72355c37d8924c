// Painting what is to change, by pointer or keyboard: arrows move, the space bar paints.

export function painter(canvas, width) {
  const context = canvas.getContext("2d");
  let last = null, spot = { x: 128, y: 128 }, painted = false;

  function paint(to, from = to) {
    context.strokeStyle = "#e11d48";
    context.lineWidth = width();
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y);
    context.stroke();
    painted = true;
  }
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.x) / box.width) * canvas.width, y: ((event.clientY - box.y) / box.height) * canvas.height };
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture?.(event.pointerId);
    last = at(event);
    paint(last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last) paint(at(event), last);
    last = last && at(event);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
  canvas.addEventListener("keydown", (event) => {
    const [x, y] = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8], " ": [0, 0] }[event.key] ?? [];
    if (x === undefined) return;
    event.preventDefault();
    spot = { x: Math.min(256, Math.max(0, spot.x + x)), y: Math.min(256, Math.max(0, spot.y + y)) };
    if (event.key === " " || event.shiftKey) paint(spot);
    canvas.style.backgroundImage = `radial-gradient(circle at ${(spot.x / 256) * 100}% ${(spot.y / 256) * 100}%, #f59e0b 6px, transparent 7px)`;
  });
  return {
    clear() {
      context.clearRect(0, 0, canvas.width, canvas.height);
      painted = false;
    },
    // White where it was painted, on black, of the picture's own shape; null where nothing was. The picture is shown whole
    // inside the square canvas, so what lies beside it is cut off.
    async file(picture) {
      if (!painted) return null;
      const { naturalWidth: w, naturalHeight: h } = picture, scale = canvas.width / Math.max(w, h);
      const out = Object.assign(document.createElement("canvas"), { width: w, height: h }), on = out.getContext("2d");
      const wide = w * scale, high = h * scale;
      on.drawImage(canvas, (canvas.width - wide) / 2, (canvas.height - high) / 2, wide, high, 0, 0, w, h);
      on.fillStyle = "#fff";
      on.globalCompositeOperation = "source-in";
      on.fillRect(0, 0, w, h);
      on.fillStyle = "#000";
      on.globalCompositeOperation = "destination-over";
      on.fillRect(0, 0, w, h);
      const blob = await new Promise((done) => out.toBlob(done, "image/png"));
      return new File([blob], "mask.png", { type: "image/png" });
    },
  };
}
