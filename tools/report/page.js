"use strict";
const report = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const state = { side: report.after ? "after" : "before", metric: "energy_j", focus: [], sort: 4, down: true, all: false };
const sides = ["before", "after"].filter(side => report[side]);

/* names come from model files: text goes in through textContent only */
function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.map(child => child instanceof Node ? child : String(child ?? "")));
  return node;
}
function box(tag, className, style) {
  const node = el(tag, className);
  Object.assign(node.style, style);
  return node;
}
function si(value, unit) {
  if (value === null || value === undefined) return "unknown";
  if (value === 0) return "0\u00a0" + unit;
  value = Number(value.toPrecision(3));
  const power = Math.max(-4, Math.min(4, Math.floor(Math.log10(Math.abs(value)) / 3)));
  return Number((value / 1000 ** power).toPrecision(3)) + "\u00a0" + ["p", "n", "µ", "m", "", "k", "M", "G", "T"][power + 4] + unit;
}
const percent = share => share === null || share === undefined ? "unknown" : (100 * share).toFixed(1) + "\u00a0%";
const mid = interval => interval ? interval.mid : null;
function delta(before, after) {
  if (!before || after === null) return "";
  const moved = 100 * (after / before - 1);
  return el("span", moved < -0.05 ? "down" : moved > 0.05 ? "up" : "", (moved > 0 ? "+" : "") + moved.toFixed(1) + "\u00a0%");
}
function table(id, headings, rows) {
  const made = el("table"), head = made.createTHead().insertRow(), body = made.createTBody();
  for (const heading of headings) head.append(el("th", "", heading));
  for (const row of rows) body.insertRow().append(...row.map(cell => el("td", "text", cell)));
  $(id).append(made);
  $("s-" + id).hidden = !rows.length;
}

function header() {
  const where = report.situation;
  $("kind").textContent = report.kind;
  $("subject").textContent = report.model.path + (report.pipeline ? " · " + report.pipeline : "");
  const chips = where ? [["target", where.target], ["executor", where.executor], ...Object.entries(where.bindings),
    ["energy of the", where.energy_scope], ["basis", report[state.side].basis.join(", ") || "unknown"]] : [["target", "none"]];
  $("chips").append(...chips.map(([name, value]) => el("span", "chip", el("b", "", name + " "), value)));
  $("warnings").append(...report.warnings.map(text => el("li", "", "⚠ " + text)));
  $("warnings").hidden = !report.warnings.length;
}

/* totals: 90 % intervals of both models on one scale */
function card(label, value, moved, ...lines) {
  $("totals").append(el("div", "card", el("small", "", label), el("strong", "", value), moved ?? "",
    ...lines.map(line => line instanceof Node ? line : el("p", "", line))));
}
function range(label, interval, most, unit) {
  const place = value => 100 * value / most + "%";
  const track = el("div", "", box("i", "", { left: place(interval.lo), width: place(interval.hi - interval.lo) }),
    box("b", "", { left: place(interval.mid) }));
  const line = el("div", "range", label, track);
  line.title = label + ": " + si(interval.lo, unit) + " to " + si(interval.hi, unit) + " (90 %)";
  return line;
}
function residual(priced, key, unit) {
  if (!priced.residual) return [];
  const off = priced.residual[key], sums = si(mid(priced.operators[key]), unit);
  return ["operators " + sums + ", residual " + (off < 0 ? "\u2212" : "+") + si(Math.abs(off), unit)];
}
function totals() {
  const now = report[sides.at(-1)], old = report.before, twice = sides.length > 1;
  if (!now) return card("cost", "not priced", null, "no target was given");
  for (const [label, key, unit] of [["energy", "energy_j", "J"], ["latency", "latency_s", "s"]]) {
    const known = sides.filter(side => report[side][key]);
    const most = Math.max(...known.map(side => report[side][key].hi));
    card(label, si(mid(now[key]), unit), twice ? delta(mid(old[key]), mid(now[key])) : null,
      (twice ? "from " + si(mid(old[key]), unit) + ", " : "")
        + (now[key] ? "90 %: " + si(now[key].lo, unit) + " to " + si(now[key].hi, unit) : "no figure"),
      ...known.map(side => range(twice ? side : "90 %", report[side][key], most, unit)), ...residual(now, key, unit));
  }
  card("mean power", si(now.power_w, "W"), twice ? delta(old.power_w, now.power_w) : null,
    percent(now.launch_share) + " of predicted time is launch overhead" + (twice ? ", " + percent(old.launch_share) + " before" : ""));
  const was = report.model.before, is = report.model.after || was;
  card("operators", is.nodes, null, twice ? "from " + was.nodes : "", "weights " + si(is.weight_bytes, "B")
    + (twice ? ", from " + si(was.weight_bytes, "B") : ""), now.unknown.count + " could not be priced");
}

/* the waterfall: what each pass took off (or put on) the joules of the original */
function passes() {
  const steps = report.passes || [];
  const most = Math.max(0, ...steps.flatMap(step => step.energy_j || []));
  table("passes", ["pass", "energy", "", "change", "applied", "contract"], steps.map(step => {
    const [from, to] = step.energy_j || [null, null], bar = el("div", "step"), at = value => 100 * value / most + "%";
    if (most) bar.append(box("i", "", { left: 0, width: at(Math.min(from, to)) }),
      box("i", to > from ? "worse" : "", { left: at(Math.min(from, to)), width: at(Math.abs(from - to)) }));
    const verdict = step.verdict ? step.verdict.text : "", where = step.broken_at ? "; first broken at " + step.broken_at : "";
    const badge = !step.kept ? el("span", "badge up", "rolled back") : step.verdict ? el("span", "badge down", "holds") : "unchanged";
    return [step.spec, step.energy_j ? si(from, "J") + "\u00a0→ " + si(to, "J") : "not priced", bar, delta(from, to),
      [...step.applied.map(item => item.count + " × " + item.rule), ...step.notes].join("; ") || "nothing",
      el("div", "", badge, " " + verdict + where)];
  }));
  table("refused", ["pass", "rule", "count", "predicted saving", "reason", "for example"],
    steps.flatMap(step => step.refused.map(item => [step.spec, item.rule, item.count, si(item.saved_j, "J"), item.reason, item.where.join(", ")])));
}

function terms() {
  const priced = sides.filter(side => Object.keys(report[side].terms).length);
  $("s-terms").hidden = !priced.length;
  const whole = side => Object.values(report[side].terms).reduce((sum, joules) => sum + joules, 0);
  const most = Math.max(...priced.map(whole));
  for (const side of priced) {
    const bar = box("div", "stack", { width: 100 * whole(side) / most + "%" });
    const legend = el("div", "legend", el("b", "", side + " " + si(whole(side), "J")));
    for (const [name, joules] of Object.entries(report[side].terms)) {
      const colour = ["static", "flops", "dram", "llc", "launch"].includes(name) ? name : "other";
      bar.append(box("div", colour, { width: 100 * joules / whole(side) + "%" }));
      legend.append(el("span", "", el("i", colour), name + " " + si(joules, "J") + " (" + percent(joules / whole(side)) + ")"));
    }
    $("terms").append(bar, legend);
  }
}

function unknowns() {
  const now = report[sides.at(-1)];
  table("unknown", ["where", "what", "why"], now ? [
    ...now.unknown.ops.map(op => [(op.path ? op.path + "/" : "") + op.name, op.op, op.reasons.join("; ")]),
    ...now.assumptions.map(text => ["whole model", "assumed", text])] : []);
}
