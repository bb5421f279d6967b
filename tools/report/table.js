/* operators of the module zoomed into, sorted and filtered; only as many rows as asked for become elements */
const ROWS = 200;
const COLUMNS = [
  { label: "module", key: op => op.path, className: "text" }, { label: "name", key: op => op.name, className: "text" },
  { label: "operator", key: op => op.op }, { label: "fused", key: op => op.group || "" },
  { label: "energy", key: op => op.energy_j, className: "n", text: op => si(op.energy_j, "J") },
  { label: "share", key: op => op.share, className: "n", text: op => percent(op.share) },
  { label: "", key: op => op.share, className: "bar-cell", text: (op, most) => box("i", "meter", { width: 90 * (op.share || 0) / most + "px" }) },
  { label: "latency", key: op => op.latency_s, className: "n", text: op => si(op.latency_s, "s") },
  { label: "basis", key: op => op.basis },
];

function leaves(node, path, found) {
  for (const child of node.children)
    if (child.children) leaves(child, path ? path + "/" + child.name : child.name, found);
    else found.push({ ...child, path });
  return found;
}
function rows() {
  if (!report[state.side]) return [];
  const wanted = $("filter").value.toLowerCase(), key = COLUMNS[state.sort].key, sign = state.down ? -1 : 1;
  const kept = leaves(focused(), trail().join("/"), []).filter(op => (op.path + "/" + op.name + " " + op.op).toLowerCase().includes(wanted));
  return kept.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === null || y === null) return (x === null) - (y === null);
    return (x < y ? -1 : x > y ? 1 : 0) * sign;
  });
}
function headings() {
  const head = el("tr");
  COLUMNS.forEach(({ label, className }, index) => {
    const cell = el("th", className === "n" ? "n" : ""), button = el("button", "", label);
    head.append(cell);
    if (!label) return;
    button.type = "button";
    button.addEventListener("click", () => {
      state.down = index === state.sort ? !state.down : className === "n";
      state.sort = index;
      operators();
      $("ops").tHead.rows[0].cells[index].firstChild.focus();
    });
    cell.setAttribute("aria-sort", index !== state.sort ? "none" : state.down ? "descending" : "ascending");
    cell.append(button);
  });
  $("ops").tHead.replaceChildren(head);
}
function operators() {
  headings();
  const list = rows(), most = list.reduce((found, op) => Math.max(found, op.share || 0), 0) || 1;
  const shown = state.all ? list : list.slice(0, ROWS);
  $("ops").tBodies[0].replaceChildren(...shown.map(op => el("tr", "", ...COLUMNS.map(
    ({ key, className, text }) => el("td", className, text ? text(op, most) : key(op))))));
  $("count").textContent = list.length + (state.focus.length ? " in " + trail().join("/") : "");
  $("more").hidden = shown.length === list.length;
  $("more").textContent = "Show all " + list.length;
}
