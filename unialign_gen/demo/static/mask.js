// Painting what is to change, by pointer or keyboard: arrows move, the space bar paints, Ctrl+Z takes back.

export function painter(canvas, width) {
  const context = canvas.getContext("2d"), inside = (v) => Math.min(256, Math.max(0, v));
  const tile = Object.assign(document.createElement("canvas"), { width: 8, height: 8 }), on = tile.getContext("2d");
  for (const [colour, wide] of [["#e11d48", 8], ["#fff", 4]]) {
    on.fillStyle = colour;
    on.fillRect(0, 0, wide, 8);
  }
  const stripes = context.createPattern(tile, "repeat"); // of two colours: one would be lost on a picture of that colour
  let last = null, spot = { x: 128, y: 128 }, strokes = []; // each a list of lines

  function draw({ from, to, lineWidth }) {
    Object.assign(context, { strokeStyle: stripes, lineWidth, lineCap: "round" });
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y);
    context.stroke();
  }
  function line(to, from) { // a stroke begins where it comes from nowhere
    if (!from) strokes.push([]);
    const made = { from: from ?? to, to, lineWidth: width() };
    strokes.at(-1).push(made);
    draw(made);
  }
  function undo() {
    strokes.pop();
    last = null;
    context.clearRect(0, 0, canvas.width, canvas.height);
    strokes.flat().forEach(draw);
  }
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.x) / box.width) * canvas.width, y: ((event.clientY - box.y) / box.height) * canvas.height };
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture?.(event.pointerId);
    line((last = at(event)));
  };
  canvas.onpointermove = (event) => {
    if (last) line(at(event), last);
    last = last && at(event);
  };
  canvas.onpointerup = canvas.onpointercancel = () => (last = null);
  canvas.onkeydown = (event) => {
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) undo();
    const [x, y] = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8], " ": [0, 0] }[event.key] ?? [];
    if (x === undefined) return;
    event.preventDefault();
    spot = { x: inside(spot.x + x), y: inside(spot.y + y) };
    if (event.key === " " || event.shiftKey) line(spot);
    canvas.style.backgroundImage = `radial-gradient(circle at ${spot.x / 2.56}% ${spot.y / 2.56}%, #f59e0b 6px, transparent 7px)`;
  };
  return {
    undo,
    clear() {
      strokes = [];
      undo();
    },
    // White where it was painted, on black, of the picture's own shape; null where nothing was. The picture is shown whole
    // inside the square canvas, so what lies beside it is cut off.
    async file({ naturalWidth: width, naturalHeight: height }) {
      if (!strokes.length) return null;
      const out = Object.assign(document.createElement("canvas"), { width, height }), on = out.getContext("2d");
      const side = Math.max(width, height);
      on.drawImage(canvas, (width - side) / 2, (height - side) / 2, side, side);
      for (const [fillStyle, globalCompositeOperation] of [["#fff", "source-in"], ["#000", "destination-over"]]) {
        Object.assign(on, { fillStyle, globalCompositeOperation });
        on.fillRect(0, 0, width, height);
      }
      return new File([await new Promise((done) => out.toBlob(done, "image/png"))], "mask.png", { type: "image/png" });
    },
  };
}
