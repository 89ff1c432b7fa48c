// mIoU against what it costs.
const mious = (row) => row.accuracy?.miou;

// The range of the axis of mIoU for points and intervals, with room around them.
const miouDomain = (values) => {
  const [low, high] = d3.extent(values);
  const room = Math.max((high - low) * 0.12, 0.5);
  return [Math.max(low - room, 0), Math.min(high + room, 100)];
};

// The points that no other one beats in both, joined in steps: less mIoU costs less.
const frontier = (own) => {
  let best = -Infinity;
  return d3.sort(own, (point) => point.x, (point) => -point.y).filter((point) => point.y > best && ((best = point.y), true));
};

// `own` and `behind` are points {x, y, text, title, ...}; own ones have `row`, and may have an interval and a tail.
const scatter = (width, name, xLabel, own, behind = []) => {
  if (!own.length) return null;
  const all = [...own, ...behind];
  const x = Page.positiveScale(all.flatMap((point) => [point.x, point.tail ?? point.x]), { log: true });
  const ends = all.flatMap((point) => point.row?.accuracy.miou_interval ?? [point.y]);
  const color = (point) => point.row.color;
  return Page.plot({
    width, height: Math.min(0.72 * width, 400), label: name,
    x: { label: xLabel, ...x }, y: { label: "mIoU (%)", domain: miouDomain([...ends, ...all.map((point) => point.y)]) },
    marks: [
      Plot.gridX(x.ticks, Page.grid), Plot.gridY(Page.grid),
      Plot.dot(behind, { x: "x", y: "y", r: 5, stroke: "var(--muted)", className: "published" }),
      Plot.ruleY(own.filter((point) => point.tail), { y: "y", x1: "x", x2: "tail", stroke: color, strokeOpacity: 0.7, className: "tails" }),
      Plot.ruleX(own.filter((point) => point.row.accuracy.miou_interval), {
        x: "x", y1: (point) => point.row.accuracy.miou_interval[0], y2: (point) => point.row.accuracy.miou_interval[1],
        stroke: color, strokeOpacity: 0.7, strokeWidth: 1.5, className: "intervals",
      }),
      Plot.line(frontier(own), { x: "x", y: "y", curve: "step-after", stroke: "var(--muted)", strokeDasharray: "3 3", className: "frontier" }),
      Plot.dot(own, { x: "x", y: "y", r: 5.5, fill: color, symbol: (point) => point.row.symbol, className: "rows" }),
      Page.labels(all.map((point) => ({ ...point, color: point.row?.color ?? "var(--muted)" }))),
      Plot.tip(all, Plot.pointer({ x: "x", y: "y", title: "title", ...Page.tip })),
    ],
  });
};

const aboutMiou = (row) => `mIoU ${points(row.accuracy.miou)}%${interval(row.accuracy.miou_interval, points)}`;

const setUpPublished = () => {
  const select = document.getElementById("published");
  const sets = Page.data.published;
  select.append(new Option("none", ""));
  sets.forEach((set, index) => select.append(new Option(`${set.title}: ${set.partition} labeled`, index)));
  const same = sets.filter((set) => set.same_classes).sort((a, b) => b.points.length - a.points.length)[0];
  if (same) select.value = sets.indexOf(same);
  return select;
};
const publishedSelect = setUpPublished();
const published = (width) => {
  const set = Page.data.published[publishedSelect.value];
  document.getElementById("published-remark").textContent = !set ? ""
    : set.same_classes ? `Gray: published methods on ${set.title} with ${set.partition} labeled; whether the labels are as many here is yours to know.`
    : `Gray: published methods on ${set.title} with ${set.partition} labeled, which are other data: not comparable with these rows.`;
  return (set?.points ?? []).map((point) => ({
    x: point.params_m, y: point.miou, text: Page.shortened(`${point.method}, ${point.networks.split(";")[0]}`, width < 460 ? 18 : 32),
    title: `${point.method}, ${point.networks}\nmIoU ${point.miou}%, ${point.params_m}M parameters\n${set.title}, ${set.partition}\n${point.source}${point.note && `\n${point.note}`}`,
  }));
};

Page.figure("parameters", (width) =>
  scatter(width, "mIoU against parameters", "parameters (millions) →",
    shownWith((row) => row.parameters && mious(row)).map((row) => ({
      row, x: row.parameters / 1e6, y: mious(row), text: label(row, width),
      title: `${row.name}\n${aboutMiou(row)}\n${row.parameters.toLocaleString("en")} parameters`,
    })),
    published(width)));

Page.figure("latency", (width) =>
  scatter(width, "mIoU against latency", "latency at batch 1 (ms) →",
    shownWith((row) => row.latency && mious(row)).map((row) => {
      const { p50, p90, p99 } = row.latency.total;
      return {
        row, x: p50, tail: p99, y: mious(row), text: label(row, width),
        title: `${row.name}\n${aboutMiou(row)}\np50 ${Page.significant(p50)} ms, p90 ${Page.significant(p90)} ms, p99 ${Page.significant(p99)} ms`,
      };
    })));
