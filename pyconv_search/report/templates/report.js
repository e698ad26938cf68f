
"use strict";
// Sorting, filtering and paging of the tables, opening of drawings. Without this script everything is simply there.
(() => {
  const PAGE = 100;
  const make = (name, text, parent) => {
    const element = document.createElement(name);
    element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return cell.textContent === "–" ? null : cell.textContent;
  };
  // Missing values stand last in either direction; a column that mixes numbers and texts puts the numbers first.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  const view = (table) => {
    const body = table.tBodies[0];
    const state = { rows: [...body.rows], page: 0, show: () => {} };
    state.shown = state.rows;
    state.draw = () => {
      const first = state.page * PAGE;
      for (const row of state.rows) row.hidden = true;
      state.shown.slice(first, first + PAGE).forEach((row) => { row.hidden = false; });
      state.show(first);
    };
    state.sort = (column, sign) => {
      const order = (rows) => rows
        .map((row) => [key(row, column), row])
        .sort((a, b) => compare(a[0], b[0], sign))
        .map((pair) => pair[1]);
      state.rows = order(state.rows);
      body.append(...state.rows);
    };
    return state;
  };
  const headings = (table, state, refresh) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        state.sort(column, up ? 1 : -1);
        refresh();
      });
    });
  };
  const controls = (table, state) => {
    const bar = document.createElement("div");
    bar.className = "controls";
    const label = make("label", "Filter ", bar);
    const text = document.createElement("input");
    text.type = "search";
    label.append(text);
    const front = document.createElement("input");
    front.type = "checkbox";
    if (table.querySelector("tr.front")) make("label", " front only", bar).prepend(front);
    const back = make("button", "Previous", bar);
    const next = make("button", "Next", bar);
    const told = make("span", "", bar);
    told.setAttribute("role", "status");
    state.show = (first) => {
      const n = state.shown.length;
      const last = Math.min(first + PAGE, n);
      told.textContent = n > PAGE ? `${first + 1}–${last} of ${n} rows` : `${n} of ${state.rows.length} rows`;
      back.hidden = next.hidden = n <= PAGE;
      back.disabled = state.page === 0;
      next.disabled = last >= n;
    };
    const texts = new Map(state.rows.map((row) => [row, row.textContent.toLowerCase()]));
    const refresh = () => {
      const wanted = text.value.toLowerCase();
      const marked = (row) => row.matches(".front, .selected");
      state.shown = state.rows.filter((row) => texts.get(row).includes(wanted) && (!front.checked || marked(row)));
      state.page = 0;
      state.draw();
    };
    const turn = (step) => () => { state.page += step; state.draw(); };
    back.addEventListener("click", turn(-1));
    next.addEventListener("click", turn(1));
    text.addEventListener("input", refresh);
    front.addEventListener("change", refresh);
    table.closest(".scroll").before(bar);
    refresh();
    return refresh;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const state = view(table);
    const refresh = state.rows.length > 8 ? controls(table, state) : state.draw;
    headings(table, state, refresh);
  }
  // A link to a drawing opens it; not every browser does that by itself, and none where the address stays the same.
  const reveal = (hash) => {
    const target = hash && document.getElementById(hash.slice(1));
    const around = target && target.closest("details");
    if (around) around.open = true;
  };
  for (const link of document.querySelectorAll("#architectures a")) {
    link.addEventListener("click", () => reveal(link.hash));
  }
  reveal(location.hash);
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      details.dataset.closed = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const details of document.querySelectorAll("details[data-closed]")) {
      details.open = false;
      delete details.dataset.closed;
    }
  });
})();
