((key, data) => {
  const numbers = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return Array.from(new Uint16Array(bytes.buffer), (n) => n - data.offset);
  };
  // The same paths as in paths.py.
  const paths = {
    line: (x, y) => "M" + y.map((h, i) => x[i] + " " + h).join("L"),
    dots: (x, y) => y.map((h, i) => `M${x[i]} ${h}h0`).join(""),
    marks: (x, y) =>
      y.map((h, i) => `M${x[2 * i]} ${h}H${x[2 * i + 1]}`).join(""),
    bars: (x, y, base) =>
      y.map((h, i) =>
        `M${x[2 * i]} ${base}V${h}H${x[2 * i + 1]}V${base}z`).join(""),
  };
  const drawers = data.parts.map((part) => {
    if (part.kind === "pictures")
      return (group, frame) => part.frames[frame].forEach((rest, i) =>
        group.children[i].setAttribute("href", part.head + rest));
    const x = numbers(part.x), y = numbers(part.y);
    const count = y.length / data.values.length;
    return (path, frame) => path.setAttribute("d", paths[part.kind](
      x, y.slice(frame * count, (frame + 1) * count), part.base));
  });
  const start = (root) => {
    const [input, output, text] =
      ["input", "output", ".ntk-text"].map((s) => root.querySelector(s));
    const moving = root.querySelectorAll("[data-moves]");
    const show = () => {
      const frame = Number(input.value);
      drawers.forEach((draw, i) => draw(moving[i], frame));
      output.textContent = data.values[frame];
      input.setAttribute("aria-valuetext", data.values[frame]);
      if (text) text.textContent = data.text[frame];
    };
    input.addEventListener("input", show);
    input.hidden = false;
    show();
  };
  const selector = `.ntk-slider[data-key="${key}"]:not([data-ready])`;
  for (const root of document.querySelectorAll(selector)) {
    root.dataset.ready = "";
    start(root);
  }
})
