"use strict";
const report = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const ROWS = 200, LINE = 27;

function el(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (className) node.className = className;
  return node;
}
function si(value, unit) {
  if (value === null || value === undefined) return "unknown";
  if (value === 0) return "0 " + unit;
  const power = Math.max(-4, Math.min(4, Math.floor(Math.log10(Math.abs(value)) / 3)));
  const prefix = ["p", "n", "µ", "m", "", "k", "M", "G", "T"][power + 4];
  return Number((value / 1000 ** power).toPrecision(3)) + " " + prefix + unit;
}
const percent = share => share === null || share === undefined ? "unknown" : (100 * share).toFixed(1) + " %";

/* totals */
function card(label, value, note, change) {
  const box = el("div", null, "card");
  box.append(el("small", label), el("b", value));
  if (change !== null && change !== undefined)
    box.append(el("span", (change > 0 ? "+" : "") + (100 * change).toFixed(1) + " % against the original ", change < 0 ? "down" : change > 0 ? "up" : ""));
  if (note) box.append(el("span", note));
  return box;
}
function relative(now, before) { return now && before ? now / before - 1 : null; }
function totals() {
  const now = report.after || report.before, old = report.before;
  $("kind").textContent = report.kind;
  const where = report.situation;
  const dims = where ? Object.entries(where.bindings).map(([k, v]) => k + "=" + v).join(", ") : "";
  $("subject").textContent = report.model.path + (where ? " on " + where.target + " with " + where.executor + (dims ? " (" + dims + ")" : "") : "")
    + (report.pipeline ? " · passes " + report.pipeline : "");
  if (!now) { $("totals").append(card("cost", "not priced", "no target was given")); return; }
  const differs = report.after !== undefined;
  const range = (i, unit) => i ? "90 %: " + si(i.lo, unit) + " to " + si(i.hi, unit) : "";
  const pick = (side, key) => side[key] ? side[key].mid : null;
  $("totals").append(
    card("energy, " + where.energy_scope + ", " + now.basis.join(", "), si(pick(now, "energy_j"), "J"), range(now.energy_j, "J"), differs ? relative(pick(now, "energy_j"), pick(old, "energy_j")) : null),
    card("latency", si(pick(now, "latency_s"), "s"), range(now.latency_s, "s"), differs ? relative(pick(now, "latency_s"), pick(old, "latency_s")) : null),
    card("mean power", si(now.power_w, "W"), "launch overhead " + percent(now.launch_share) + " of the time"),
    card("operators", String((report.model.after || report.model.before).nodes), now.unknown.count + " unknown" + (differs ? ", " + report.model.before.nodes + " in the original" : "")));
}

/* icicle */
let side = report.after ? "after" : "before", focus = [];
function energy(node) { return node.energy_j || 0; }
function total(node) { return node.children ? node.children.reduce((sum, child) => sum + total(child), 0) : energy(node); }
function colour(share) { return "hsl(" + (48 - 30 * Math.min(1, share * 2)) + " " + (30 + 55 * Math.min(1, share * 3)) + "% calc(var(--base) - " + (26 * Math.min(1, share * 2.5)) + "% * var(--sign, 1)))"; }
const dark = matchMedia("(prefers-color-scheme: dark)");
function sign() { document.documentElement.style.setProperty("--sign", dark.matches ? -1 : 1); }
dark.addEventListener("change", sign);
function describe(node, path, share) {
  const lines = [path || "(model)", (node.op || node.cls || "module") + (node.group ? " · fused: " + node.group : ""),
    si(node.energy_j, "J") + " · " + percent(share) + " · " + si(node.latency_s, "s")];
  if (node.shape) lines.push(node.dtype + "[" + node.shape.join(", ") + "]");
  if (node.basis) lines.push(node.basis);
  return lines.join("\n");
}
function icicle() {
  const box = $("icicle"), priced = report[side];
  box.textContent = "";
  $("up").hidden = !focus.length;
  if (!priced) { box.append(el("p", "Not priced: no target was given.", "hint")); return; }
  let root = priced.tree;
  const names = [];
  for (const index of focus) { root = root.children[index]; names.push(root.name); }
  $("crumb").textContent = names.length ? names.join(" / ") : "Width is energy. Click or press Enter to zoom into a module.";
  const whole = total(root) || 1, all = total(priced.tree) || 1, width = box.clientWidth || 1100;
  let deepest = 0;
  const place = (node, x, depth, path, trail) => {
    const size = total(node), w = size / whole * width;
    if (w < 1.5) return;
    deepest = Math.max(deepest, depth);
    const cell = el("button", node.name || "(model)", "cell" + (node.basis === "unknown" ? " unknown" : ""));
    cell.type = "button"; cell.setAttribute("role", "treeitem");
    cell.style.left = x + "px"; cell.style.top = depth * LINE + "px"; cell.style.width = Math.max(1, w) + "px";
    cell.style.background = colour(size / all);
    const text = describe(node, path, size / all);
    cell.setAttribute("aria-label", text.replace(/\n/g, ", "));
    cell.addEventListener("mousemove", event => tip(text, event.clientX, event.clientY));
    cell.addEventListener("mouseleave", () => tip(null));
    cell.addEventListener("focus", () => { const r = cell.getBoundingClientRect(); tip(text, r.left, r.bottom); });
    cell.addEventListener("blur", () => tip(null));
    if (node.children) cell.addEventListener("click", () => { focus = depth ? trail : focus.slice(0, -1); tip(null); icicle(); });
    box.append(cell);
    let at = x;
    (node.children || []).forEach((child, index) => {
      place(child, at, depth + 1, path ? path + "/" + child.name : child.name, [...trail, index]);
      at += total(child) / whole * width;
    });
  };
  place(root, 0, 0, names.join("/"), focus);
  box.style.height = (deepest + 1) * LINE + "px";
}
function tip(text, x, y) {
  const box = $("tip");
  box.hidden = text === null;
  if (text === null) return;
  box.textContent = text;
  box.style.left = Math.min(x + 14, innerWidth - 380) + "px"; box.style.top = Math.min(y + 14, innerHeight - 110) + "px";
}

/* energy by cause */
const COLOURS = { static: "#8d99a6", flops: "#d9822b", dram: "#3f7fbf", llc: "#62b8a5", launch: "#b39ddb" };
function terms() {
  const box = $("terms");
  box.textContent = "";
  for (const key of ["before", "after"]) {
    const priced = report[key];
    if (!priced) continue;
    const whole = Object.values(priced.terms).reduce((a, b) => a + b, 0) || 1;
    const bar = el("div", null, "stack"), legend = el("div", null, "legend");
    legend.append(el("strong", key));
    for (const [name, joules] of Object.entries(priced.terms)) {
      const part = el("div"); part.style.width = 100 * joules / whole + "%"; part.style.background = COLOURS[name] || "#999";
      bar.append(part);
      const entry = el("span"), mark = el("i"); mark.style.background = COLOURS[name] || "#999";
      entry.append(mark, name + " " + si(joules, "J") + " (" + percent(joules / whole) + ")");
      legend.append(entry);
    }
    box.append(bar, legend);
  }
  if (!box.children.length) box.append(el("p", "Not priced.", "hint"));
}

/* operators */
const COLUMNS = [["module", o => o.path, "path"], ["name", o => o.name, "path"], ["operator", o => o.op], ["fused", o => o.group],
  ["energy", o => o.energy_j, "n", o => si(o.energy_j, "J")], ["share", o => o.share, "n", o => percent(o.share)], ["", o => o.share],
  ["latency", o => o.latency_s, "n", o => si(o.latency_s, "s")], ["basis", o => o.basis]];
let sorting = [4, -1], shown = ROWS;
function leaves(node, out) { if (node.children) node.children.forEach(child => leaves(child, out)); else out.push(node); return out; }
function rows() {
  const priced = report[side];
  if (!priced) return [];
  const list = leaves(priced.tree, []), whole = list.reduce((sum, op) => sum + energy(op), 0) || 1;
  list.forEach(op => { op.share = op.energy_j === null ? null : op.energy_j / whole; });
  const wanted = $("filter").value.toLowerCase();
  const kept = wanted ? list.filter(op => (op.path + "/" + op.name + " " + op.op).toLowerCase().includes(wanted)) : list;
  const key = COLUMNS[sorting[0]][1];
  return [...kept].sort((a, b) => { const x = key(a), y = key(b);
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : x > y ? 1 : 0) * sorting[1]; });
}
function operators() {
  const head = $("ops").tHead, body = $("ops").tBodies[0];
  head.textContent = ""; body.textContent = "";
  const top = head.insertRow();
  COLUMNS.forEach(([label, , kind], index) => {
    const cell = el("th", label, "sort" + (kind === "n" ? " n" : ""));
    if (label) {
      cell.tabIndex = 0;
      cell.setAttribute("aria-sort", index === sorting[0] ? (sorting[1] > 0 ? "ascending" : "descending") : "none");
      const sort = () => { sorting = [index, index === sorting[0] ? -sorting[1] : kind === "n" ? -1 : 1]; operators(); };
      cell.addEventListener("click", sort);
      cell.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
    }
    top.append(cell);
  });
  const list = rows();
  for (const op of list.slice(0, shown)) {
    const row = body.insertRow();
    COLUMNS.forEach(([label, key, kind, text]) => {
      const cell = el("td", label ? (text ? text(op) : key(op)) : "", kind);
      if (!label) { const bar = el("span", null, "meter"); bar.style.width = 90 * (op.share || 0) + "px"; cell.append(bar); }
      row.append(cell);
    });
  }
  $("more").hidden = list.length <= shown;
  $("more").textContent = "Show all " + list.length;
}

/* passes, refusals, unknown */
function table(headings, lines) {
  const made = el("table"), top = made.createTHead().insertRow(), body = made.createTBody();
  headings.forEach(heading => top.append(el("th", heading)));
  lines.forEach(line => { const row = body.insertRow(); line.forEach(text => row.append(el("td", text, "path"))); });
  return made;
}
function steps() {
  const passes = report.passes || [];
  $("s-passes").hidden = !passes.length;
  $("passes").append(table(["pass", "applied", "operators", "energy", "contract"], passes.map(step => [step.spec,
    [...step.applied.map(item => item.count + " × " + item.rule), ...step.notes].join(", ") || "nothing",
    step.nodes.join(" → "), step.energy_j ? step.energy_j.map(j => si(j, "J")).join(" → ") : "not priced",
    (step.verdict || "unchanged") + (step.kept ? "" : ": rolled back, first broken at " + (step.broken_at || "unknown"))])));
  const refused = passes.flatMap(step => step.refused.map(item => [step.spec, item.rule, String(item.count),
    item.saved_j === null ? "" : si(item.saved_j, "J"), item.reason, item.where.join(", ")]));
  $("s-refused").hidden = !refused.length;
  $("refused").append(table(["pass", "rule", "count", "predicted saving", "reason", "for example"], refused));
  const now = report.after || report.before;
  const lines = now ? [...now.unknown.ops.map(op => [op.path + "/" + op.name, op.op, op.reasons.join("; ")]),
    ...now.assumptions.map(text => ["(whole model)", "assumed", text])] : [];
  $("s-unknown").hidden = !lines.length;
  $("unknown").append(table(["where", "what", "why"], lines));
}

function toggle() {
  const box = $("toggle");
  box.textContent = "";
  if (!report.after) return;
  for (const key of ["before", "after"]) {
    const button = el("button", key); button.type = "button";
    button.setAttribute("aria-pressed", String(key === side));
    button.addEventListener("click", () => { side = key; focus = []; toggle(); icicle(); operators(); });
    box.append(button);
  }
}
$("up").addEventListener("click", () => { focus = focus.slice(0, -1); icicle(); });
$("filter").addEventListener("input", () => { shown = ROWS; operators(); });
$("more").addEventListener("click", () => { shown = Infinity; operators(); });
addEventListener("resize", icicle);
sign(); totals(); toggle(); icicle(); terms(); operators(); steps();
