// What every page has: the theme switch, tables that sort, rows that can be taken out, and plots that follow both.
const Page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const off = new Set(); // indices of the rows that were taken out
  const figures = [];
  const ROW_COLORS = 10;
  const LABEL_GAP = 14; // px from one label to the next

  // ---- figures as text

  // Three significant digits, as in the tables; a dash for what is null.
  const significant = (value) => {
    if (value === null || value === undefined) return "–";
    const magnitude = value === 0 ? -1 : Number(value.toExponential(2).split("e")[1]); // 9.996 is 10.0
    return magnitude < -6 ? value.toExponential(2) : value.toFixed(Math.max(2 - magnitude, 0));
  };
  const quantity = (value) => {
    if (value === null || value === undefined) return "–";
    for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(value) >= factor) return significant(value / factor) + prefix;
    return significant(value);
  };
  const shortened = (name, longest) => {
    const letters = [...name];
    if (letters.length <= longest) return name;
    const tail = Math.floor((longest - 1) / 2);
    return letters.slice(0, longest - 1 - tail).join("") + "…" + letters.slice(letters.length - tail).join("");
  };

  // ---- places of labels and ticks

  // Move ascending `positions` apart until neighbors are `gap` from one another, each group around its mean
  // (isotonic regression of the positions with the gaps taken out).
  const spread = (positions, gap) => {
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const groups = [];
    positions.forEach((position, index) => {
      groups.push([position - index * gap]);
      while (groups.length > 1 && mean(groups.at(-2)) > mean(groups.at(-1))) {
        const last = groups.pop();
        groups.at(-1).push(...last);
      }
    });
    return groups.flatMap((group) => group.map(() => mean(group))).map((value, index) => value + index * gap);
  };

  // Move the lowest of ascending `positions` up until none is below `bottom`, and those above them as far as `gap` asks.
  const keptAbove = (positions, bottom, gap) =>
    positions.reduceRight((kept, position) => [Math.min(position, kept.length ? kept[0] - gap : bottom), ...kept], []);

  // A mark that writes a label beside each point {x, y, text, color}, none over another, with a thin line to its point
  // where it had to be moved.
  const labels = (points) => (index, scales, values, { width, height, marginBottom }) => {
    const places = points.map((point) => {
      const x = scales.x(point.x), length = 6.6 * [...point.text].length;
      const left = x + 10 + length > width - 2;
      return { ...point, px: x, py: scales.y(point.y), left, from: left ? x - 10 - length : x + 10, to: left ? x - 10 : x + 10 + length };
    });
    for (const group of overlapping(places)) {
      group.sort((a, b) => a.py - b.py);
      const heights = spread(group.map((place) => place.py), LABEL_GAP);
      keptAbove(heights, height - marginBottom - LABEL_GAP / 2, LABEL_GAP).forEach((at, place) => (group[place].at = at));
    }
    const g = d3.create("svg:g").attr("aria-label", "labels").attr("font-size", 12);
    for (const place of places) {
      if (place.at < LABEL_GAP / 2) continue; // no room: its point still says what it is
      const side = place.left ? -1 : 1;
      if (Math.abs(place.at - place.py) > 4)
        g.append("line").attr("stroke", place.color).attr("stroke-opacity", 0.6)
          .attr("x1", place.px + 5 * side).attr("y1", place.py).attr("x2", place.px + 9 * side).attr("y2", place.at);
      g.append("text").attr("x", place.px + 10 * side).attr("y", place.at).attr("dy", "0.32em").attr("fill", place.color)
        .attr("text-anchor", place.left ? "end" : "start").attr("stroke", "var(--surface)").attr("stroke-width", 3)
        .attr("paint-order", "stroke").text(place.text);
    }
    return g.node();
  };
  // The places in groups that share no horizontal range with one another.
  const overlapping = (places) => {
    const groups = [];
    let end = -Infinity;
    for (const place of [...places].sort((a, b) => a.from - b.from)) {
      if (place.from > end) groups.push([]);
      groups.at(-1).push(place);
      end = Math.max(end, place.to);
    }
    return groups;
  };

  // Round values between both ends for a logarithmic axis, few enough to be read.
  const logTicks = (low, high) => {
    const steps = high / low > 1000 ? [1] : high / low > 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const step of steps) ticks.push(Number((step * 10 ** power).toPrecision(3)));
    return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  };
  // An axis over positive `values`: logarithmic where they differ much, else from 0 on.
  const positiveScale = (values, { log = d3.max(values) > 8 * d3.min(values), room = 1.25 } = {}) => {
    const low = d3.min(values), high = d3.max(values);
    if (!log) return { domain: [0, high * room], nice: false };
    const domain = [low / room, high * room];
    return { type: "log", domain, ticks: logTicks(...domain), tickFormat: (tick) => `${tick}` };
  };

  // ---- rows

  const color = (index) => `var(--row-${index % ROW_COLORS})`;
  const dashes = (index) => ["none", "7 3", "2 3"][Math.floor(index / ROW_COLORS) % 3]; // beyond the colors
  const shown = (index) => !off.has(index);
  const rowBoxes = () => document.querySelectorAll("input[type=checkbox][data-row]");
  const toggle = (index, on) => {
    if (on) off.delete(index);
    else off.add(index);
    for (const box of rowBoxes())
      if (Number(box.dataset.row) === index) {
        box.checked = on;
        box.closest("tr")?.classList.toggle("off", !on);
      }
    redraw();
  };

  // ---- plots

  // Have `draw(width, figure)` fill the figure `plot-ID` with the SVG that it returns, again whenever rows or the width
  // change. A figure that has nothing to draw with all rows shown is taken off the page.
  const figure = (id, draw) => {
    const element = document.getElementById(`plot-${id}`);
    const entry = { element, draw, canvas: element.querySelector(".canvas"), near: false, stale: false };
    for (const control of element.querySelectorAll(".controls select, .controls input"))
      control.addEventListener("change", () => render(entry));
    if (!render(entry)) return element.remove();
    figures.push(entry);
    watcher.observe(element);
  };
  const render = (entry) => {
    const { element, draw, canvas } = entry;
    entry.stale = false;
    const drawn = draw(Math.max(canvas.clientWidth, 260), element);
    if (drawn) canvas.replaceChildren(drawn);
    else canvas.textContent = "None of the rows that are shown has these metrics.";
    return drawn !== null;
  };
  // What is far from the window is drawn again when it comes near: many plots of many rows take a while.
  const redraw = () => {
    for (const entry of figures)
      if (entry.near) render(entry);
      else entry.stale = true;
  };
  const drawStale = () => figures.filter((entry) => entry.stale).forEach(render);
  const watcher = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) figures.find(({ element }) => element === target).near = isIntersecting;
      figures.filter((entry) => entry.near && entry.stale).forEach(render);
    },
    { rootMargin: "500px 0px" },
  );

  // Plot.plot in the page's style. Axes are named at their ends by `label`.
  const plot = ({ width, height = 320, label, marginTop = 26, ...options }) =>
    Plot.plot({ width, height, marginLeft: 48, marginBottom: 40, marginTop, ariaLabel: label, ...options });
  const tip = { lineWidth: 40, lineHeight: 1.3, textPadding: 8, fontSize: 12, fill: "var(--surface)", stroke: "var(--muted)" };
  const grid = { stroke: "var(--grid)", strokeOpacity: 1 };

  // ---- tables, theme, print

  const sortable = (table) => {
    for (const header of table.querySelectorAll("th:has(button.sort)"))
      header.querySelector("button.sort").addEventListener("click", () => sortBy(table, header));
  };
  const sortBy = (table, header) => {
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[header.cellIndex].dataset.value ?? "";
    const order = (a, b) => {
      if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === ""); // missing ones last
      const compared = header.dataset.text === undefined ? value(a) - value(b) : value(a).localeCompare(value(b));
      return up ? compared : -compared;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  };
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const nameTheme = () => (document.querySelector("#theme span").textContent = isDark() ? "light" : "dark");

  const start = () => {
    document.getElementById("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      nameTheme();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
    nameTheme();
    document.querySelectorAll("table.sortable").forEach(sortable);
    for (const box of rowBoxes()) box.addEventListener("change", () => toggle(Number(box.dataset.row), box.checked));
    let width = document.body.clientWidth;
    new ResizeObserver(() => {
      if (document.body.clientWidth === width) return;
      width = document.body.clientWidth;
      requestAnimationFrame(redraw);
    }).observe(document.body);
    for (const section of document.querySelectorAll("section.of-plots"))
      if (!section.querySelector("figure.plot")) section.remove();
    addEventListener("beforeprint", () => {
      document.querySelectorAll("details").forEach((part) => (part.open = true));
      drawStale();
    });
  };

  return {
    data, significant, quantity, shortened, spread, labels, logTicks, positiveScale,
    color, dashes, shown, figure, redraw, plot, tip, grid, start,
  };
})();
