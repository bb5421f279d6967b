/* loss against joules: what each pass tried under its accuracy contract, beside the bound of that contract */
const PLOT = { left: 62, right: 624, top: 14, bottom: 238 };

const figure = value => String(Number(value.toPrecision(3)));

/* linear, with up to seven round ticks; never narrower than 4 % of the largest, so that three digits tell them apart */
function scale(values, from, to) {
  const least = Math.min(...values), most = Math.max(...values);
  const margin = Math.max(0.08 * (most - least), 0.02 * Math.max(Math.abs(least), Math.abs(most))) || 0.5;
  const low = least - margin, high = most + margin, rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough)), step = power * [1, 2, 5, 10].find(times => times * power >= rough);
  const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
  return { at: value => from + (to - from) * (value - low) / (high - low),
    ticks: Array.from({ length: count }, (_, index) => (first + index) * step) };
}
function tried(trial, unit) {
  const without = trial.holds ? "no difference" : "outputs are not finite";
  return [...(trial.energy_j === null ? [] : [si(trial.energy_j, "J")]), percent(trial.share) + " of the operators in low precision",
    trial.measured === null ? without : figure(trial.measured) + " " + unit, trial.holds ? "holds" : "breaks the contract",
    ...(trial.chosen ? ["chosen"] : [])].join(", ");
}
function shape(parent, tag, attributes, text) {
  const made = document.createElementNS(parent.namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text ?? "";
  parent.append(made);
  return made;
}
function level(svg, y, className) {
  shape(svg, "line", { class: className, x1: PLOT.left, x2: PLOT.right, y1: y, y2: y });
}
function axes(svg, x, y, joules, unit) {
  for (const tick of x.ticks) {
    shape(svg, "line", { x1: x.at(tick), x2: x.at(tick), y1: PLOT.top, y2: PLOT.bottom });
    shape(svg, "text", { x: x.at(tick), y: PLOT.bottom + 16, "text-anchor": "middle" }, joules ? si(tick, "J") : percent(tick));
  }
  for (const tick of y.ticks) {
    level(svg, y.at(tick), "");
    shape(svg, "text", { x: PLOT.left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, figure(tick));
  }
  const below = joules ? "predicted energy of an execution, J" : "operators in low precision, %";
  shape(svg, "text", { class: "x", x: PLOT.right, y: PLOT.bottom + 36, "text-anchor": "end" }, below);
  const turned = `translate(12 ${(PLOT.top + PLOT.bottom) / 2}) rotate(-90)`;
  shape(svg, "text", { class: "y", transform: turned, "text-anchor": "middle" }, "measured, " + unit);
}
function point(svg, place, trial, unit) {
  if (trial.chosen) shape(svg, "circle", { ...place, class: "ring", r: 9 });
  const made = shape(svg, "circle", { ...place, class: trial.holds ? "point" : "point breaks", r: 5 });
  shape(made, "title", {}, tried(trial, unit));
}
function plot({ spec, bound: { required, unit }, trials }, drawn) {
  const svg = $("plot").content.firstElementChild.cloneNode(), asked = required === null ? [] : [required];
  const joules = trials.every(trial => trial.energy_j !== null), along = trial => joules ? trial.energy_j : trial.share;
  const x = scale(joules ? drawn.map(along) : [0, 1], PLOT.left, PLOT.right);
  const y = scale([...drawn.map(trial => trial.measured), ...asked], PLOT.bottom, PLOT.top);
  axes(svg, x, y, joules, unit);
  const labels = asked.map(value => figure(value) + " " + unit + " required");
  for (const label of labels) {
    level(svg, y.at(required), "bound");
    shape(svg, "text", { x: PLOT.left + 6, y: y.at(required) - 5 }, label);
  }
  for (const trial of drawn) point(svg, { cx: x.at(along(trial)), cy: y.at(trial.measured) }, trial, unit);
  svg.setAttribute("aria-label", [spec, ...labels, ...trials.map(trial => tried(trial, unit))].join("; "));
  return svg;
}
/* all in float the error is infinitely small, or nearly: such a point would leave no room for the others */
function frontiers() {
  const steps = (report.passes || []).filter(step => step.trials.length);
  $("s-frontier").hidden = !steps.length;
  for (const step of steps) {
    const far = trial => trial.measured === null || !trial.share;
    const drawn = step.trials.filter(trial => !far(trial)), left = step.trials.filter(far);
    $("frontier").append(el("p", "hint", step.spec), ...(drawn.length ? [plot(step, drawn)] : []),
      ...left.map(trial => el("p", "hint", "Not drawn: " + tried(trial, step.bound.unit))));
  }
}
