/* modules from the top down, width by joules or seconds; what is unknown is hatched and has a nominal width */
const LINE = 26, NARROW = 26, HIDDEN = 1.2;

function focused() {
  return state.focus.reduce((node, index) => node.children[index], report[state.side].tree);
}
function trail() {
  let node = report[state.side].tree;
  return state.focus.map(index => (node = node.children[index]).name);
}
function weigh(node, nominal, widths) {
  const own = node.children ? 0 : node.basis === "unknown" ? nominal : node[state.metric] || 0;
  const width = (node.children || []).reduce((sum, child) => sum + weigh(child, nominal, widths), own);
  widths.set(node, width);
  return width;
}
function describe(node, path) {
  const known = si(node.energy_j, "J") + " · " + percent(node.share) + " of the operators' joules · " + si(node.latency_s, "s");
  const about = (node.op || node.cls || "module") + (node.group ? " · fused by the executor: " + node.group : "");
  const lines = [path || "all operators", about, node.energy_j === null ? "cost unknown" + (node.reasons ? ": " + node.reasons.join("; ") : "") : known];
  if (node.shape) lines.push((node.dtype || "") + " [" + node.shape.join(", ") + "] · " + node.basis);
  if (node.children && node.unknown) lines.push(node.unknown + " operators below are unknown and not in these figures");
  return lines.join("\n");
}
function tip(text, x, y) {
  $("tip").hidden = !text;
  if (!text) return;
  $("tip").textContent = text;
  $("tip").style.left = Math.max(4, Math.min(x + 14, innerWidth - $("tip").offsetWidth - 8)) + "px";
  $("tip").style.top = Math.max(4, Math.min(y + 16, innerHeight - $("tip").offsetHeight - 8)) + "px";
}
function cell(node, path, steps, place, heat) {
  const unknown = node.children ? node.energy_j === null : node.basis === "unknown";
  const made = el("button", "cell" + (unknown ? " unknown" : "") + (place.width < NARROW ? " narrow" : ""), node.op || node.name || "model");
  Object.assign(made.style, { left: place.x + "px", top: place.depth * LINE + "px", width: place.width + "px",
    background: "color-mix(in oklab, var(--hot) " + Math.round(100 * heat) + "%, var(--cold))" });
  made.type = "button";
  made.tabIndex = steps.length === state.focus.length ? 0 : -1;
  made.dataset.steps = steps.join();
  made.setAttribute("role", "treeitem");
  made.setAttribute("aria-level", place.depth + 1);
  const text = describe(node, path);
  made.setAttribute("aria-label", text.replaceAll("\n", ", "));
  made.addEventListener("mousemove", event => tip(text, event.clientX, event.clientY));
  made.addEventListener("mouseleave", () => tip(""));
  made.addEventListener("focus", () => { const at = made.getBoundingClientRect(); tip(text, at.left, at.bottom); });
  made.addEventListener("blur", () => tip(""));
  if (node.children) {
    made.setAttribute("aria-expanded", "true");
    made.addEventListener("click", () => zoom(place.depth ? steps : steps.slice(0, -1)));
  }
  return made;
}
function zoom(steps) {
  state.focus = steps;
  tip("");
  draw();
  $("icicle").querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  tip("");
}
function icicle() {
  const area = $("icicle");
  area.textContent = "";
  const priced = report[state.side];
  if (!priced) return area.append(el("p", "hint", "Not priced: no target was given."));
  const known = priced.tree[state.metric] || 0, widths = new Map();
  weigh(priced.tree, known ? known * Math.min(0.01, 0.15 / Math.max(1, priced.unknown.count)) : 1, widths);
  const scale = area.clientWidth / (widths.get(focused()) || 1);
  let deepest = 0;
  const put = (node, x, depth, path, steps) => {
    const width = widths.get(node) * scale, share = known ? (node[state.metric] || 0) / known : 0;
    if (width < HIDDEN) return;
    deepest = Math.max(deepest, depth);
    area.append(cell(node, path, steps, { x, depth, width }, Math.min(1, Math.sqrt(share))));
    let at = x;
    (node.children || []).forEach((child, index) => {
      put(child, at, depth + 1, path ? path + "/" + child.name : child.name, [...steps, index]);
      at += widths.get(child) * scale;
    });
  };
  put(focused(), 0, 0, trail().join("/"), state.focus);
  area.style.height = (deepest + 1) * LINE + "px";
  crumbs();
}
function crumbs() {
  $("crumbs").textContent = "";
  $("crumbs").hidden = !state.focus.length;
  ["model", ...trail()].forEach((name, depth) => {
    const button = el("button", "", name);
    button.type = "button";
    button.addEventListener("click", () => zoom(state.focus.slice(0, depth)));
    $("crumbs").append(depth ? " / " : "", button);
  });
  $("legend").textContent = "Width is " + (state.metric === "energy_j" ? "energy" : "latency") + ", warmer is a larger share. "
    + "Click or Enter zooms in, Escape out, arrows move. Hatched is unknown: its width is nominal.";
}
function move(event) {
  const from = event.target.dataset.steps;
  if (from === undefined) return;
  const steps = from ? from.split(",").map(Number) : [], last = steps.at(-1);
  const go = { ArrowUp: steps.slice(0, -1), ArrowDown: [...steps, 0], ArrowLeft: [...steps.slice(0, -1), last - 1],
    ArrowRight: [...steps.slice(0, -1), last + 1] }[event.key];
  if (event.key === "Escape" && state.focus.length) zoom(state.focus.slice(0, -1));
  if (!go) return;
  event.preventDefault();
  $("icicle").querySelector(`[data-steps="${go.join()}"]`)?.focus();
}
