"use strict";
(function () {
  // Tables of any length: the rows stay as data, and a page of them is in the document.
  const PAGE = 100;
  const tables = JSON.parse(document.getElementById("data").textContent);

  function element(name, text, parent) {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  // Five digits, as in the other forms of these tables.
  function shown(value) {
    if (value === null) return "";
    if (typeof value !== "number") return value;
    if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
    const size = Math.abs(value);
    if (size < 1e-4 || size >= 1e7) return value.toExponential(2);
    return String(Number(value.toPrecision(5)));
  }

  function ascending(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  }

  // `column=value`, `column>number`, `column<number`, or a word that stands anywhere in the row.
  function condition(term, columns) {
    const parts = /^([^=<>]+)(<=|>=|=|<|>)(.+)$/.exec(term);
    const column = parts ? columns.indexOf(parts[1]) : -1;
    if (column < 0) {
      const word = term.toLowerCase();
      return (row) => row.some((value) => value !== null && String(value).toLowerCase().includes(word));
    }
    const wanted = parts[3], number = Number(wanted);
    const is = (value) => String(value).toLowerCase() === wanted.toLowerCase() || (typeof value === "number" && Math.abs(value - number) < 1e-9);
    const tests = { "=": is, "<": (v) => v < number, ">": (v) => v > number, "<=": (v) => v <= number, ">=": (v) => v >= number };
    const test = tests[parts[2]];
    return (row) => row[column] !== null && (parts[2] === "=" || typeof row[column] === "number") && test(row[column]);
  }

  function build(details) {
    const { name, columns, rows } = tables[Number(details.dataset.table)];
    const numeric = columns.map((_, c) => rows.some((row) => row[c] !== null) && rows.every((row) => row[c] === null || typeof row[c] === "number"));
    const same = columns.map((_, c) => rows.length > 1 && rows.every((row) => row[c] === rows[0][c]));
    let all = false, sorted = -1, down = false, first = 0, kept = rows.slice();

    const bar = element("div", null, details);
    bar.className = "bar";
    const filter = element("input", null, bar);
    filter.type = "search";
    filter.placeholder = "filter " + name;
    filter.setAttribute("aria-label", "filter " + name);
    const before = element("button", "‹", bar), place = element("span", "", bar), after = element("button", "›", bar);
    before.setAttribute("aria-label", "earlier rows");
    after.setAttribute("aria-label", "later rows");
    place.setAttribute("aria-live", "polite");
    const constant = element("p", "", details);
    constant.className = "same";
    if (same.some(Boolean)) {
      const more = element("button", "all columns", bar);
      more.addEventListener("click", () => { all = !all; more.textContent = all ? "fewer columns" : "all columns"; draw(); });
    }
    const scroll = element("div", null, details);
    scroll.className = "scroll";
    const table = element("table", null, scroll), head = element("tr", null, element("thead", null, table)), body = element("tbody", null, table);

    function select() {
      const tests = filter.value.trim().split(/\s+/).filter(Boolean).map((term) => condition(term, columns));
      kept = rows.filter((row) => tests.every((test) => test(row)));
      if (sorted >= 0) {
        const way = down ? -1 : 1;
        // What is missing comes last, whichever way.
        kept.sort((a, b) => (a[sorted] === null) - (b[sorted] === null) || (a[sorted] === null ? 0 : way * ascending(a[sorted], b[sorted])));
      }
      first = 0;
      draw();
    }

    function draw() {
      const visible = columns.map((_, c) => c).filter((c) => all || !same[c]);
      const hidden = columns.map((_, c) => c).filter((c) => !visible.includes(c) && rows[0][c] !== null);
      constant.textContent = hidden.length ? "the same in all rows: " + hidden.map((c) => columns[c] + " " + shown(rows[0][c])).join(", ") : "";
      head.replaceChildren(...visible.map((c) => {
        const cell = element("th"), button = element("button", columns[c] + (c === sorted ? (down ? " ▾" : " ▴") : ""), cell);
        cell.scope = "col";
        if (numeric[c]) cell.className = "number";
        if (c === sorted) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        button.addEventListener("click", () => { down = c === sorted ? !down : false; sorted = c; select(); });
        return cell;
      }));
      body.replaceChildren(...kept.slice(first, first + PAGE).map((row) => {
        const line = element("tr");
        for (const c of visible) {
          const cell = element("td", shown(row[c]), line);
          if (numeric[c]) cell.className = "number";
          if (typeof row[c] === "number") cell.title = String(row[c]);
        }
        return line;
      }));
      const last = Math.min(first + PAGE, kept.length);
      const of = kept.length === rows.length ? "" : " (of " + rows.length + ")";
      place.textContent = kept.length ? "rows " + (first + 1) + "–" + last + " of " + kept.length + of : "no rows" + of;
      before.disabled = first === 0;
      after.disabled = last >= kept.length;
    }

    filter.addEventListener("input", select);
    before.addEventListener("click", () => { first = Math.max(0, first - PAGE); draw(); });
    after.addEventListener("click", () => { first += PAGE; draw(); });
    draw();
  }

  for (const details of document.querySelectorAll("details.table")) {
    const once = () => { if (details.open && !details.dataset.built) { details.dataset.built = "yes"; build(details); } };
    details.addEventListener("toggle", once);
    once();
  }
})();
