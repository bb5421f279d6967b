/* wiring */
function toggle(id, options, key) {
  const buttons = options.map(([value, label]) => {
    const button = el("button", "", label);
    button.type = "button";
    button.setAttribute("aria-pressed", String(state[key] === value));
    button.addEventListener("click", () => {
      if (key === "side") state.focus = [];
      state[key] = value;
      draw();
      $(id).querySelector("[aria-pressed=true]").focus();
    });
    return button;
  });
  $(id).replaceChildren(...buttons);
  $(id).hidden = options.length < 2;
}
function draw() {
  toggle("side", sides.map(side => [side, side]), "side");
  toggle("metric", sides.length ? [["energy_j", "energy"], ["latency_s", "latency"]] : [], "metric");
  icicle();
  operators();
}
$("filter").addEventListener("input", () => { state.all = false; operators(); });
$("more").addEventListener("click", () => { state.all = true; operators(); });
$("icicle").addEventListener("keydown", move);
addEventListener("resize", icicle);
header(); totals(); passes(); frontiers(); terms(); unknowns(); draw();
