"use strict";
const at = (id) => document.getElementById(id);
const sides = [0, 1].map((side) => ({ canvas: at(`mask-${side}`), select: at(`model-${side}`), ids: null, blob: null }));
const hiddenClasses = new Set();  // by name: two artifacts need not number their classes alike
let models = [];
let key = sessionStorage.getItem("segkc-deploy-key") || "";
let latest = 0;  // the newest prediction; answers to older ones are dropped
let source = null;

/* The service */

async function call(path, options = {}) {
  const headers = key ? { "X-API-Key": key } : {};
  const response = await fetch(path, { ...options, headers }).catch(() => {
    throw new Error("The service cannot be reached.");
  });
  if (response.status === 401) at("key").hidden = false;
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    const detail = typeof answer.detail === "string" ? answer.detail : response.statusText;
    throw new Error(`${response.status}: ${detail}`);
  }
  return response;
}

async function start() {
  try {
    models = await (await call("models")).json();
  } catch (error) {
    return complain(error);
  }
  at("key").hidden = true;
  complain(null);
  sides.forEach((side, index) => {
    const options = models.map((model) => new Option(model.name, model.name));
    side.select.replaceChildren(...(index ? [new Option("nothing", "")] : []), ...options);
  });
  at("models").hidden = models.length < 2;
  at("places").hidden = !models.some((model) => model.in_browser);
  if (models.length > 1) sides[1].select.value = models[1].name;
  describe();
  if (source) predict(source);  // chosen before the key was
}

function describe() {
  const shown = chosen().map(({ model }) => {
    const size = model.any_size ? "any size" : `${model.width} × ${model.height}`;
    const place = inBrowser(model) ? "ONNX Runtime Web in this browser" : model.runs_on;
    return `${model.artifact} (${model.precision}, ${size}, ${place})`;
  });
  at("about").textContent = shown.join(" against ");
}

function chosen() {
  return sides.map((side, index) => ({ side, index, model: models.find((model) => model.name === side.select.value) }))
    .filter(({ model, index }) => model && (index === 0 || model.name !== sides[0].select.value));
}

/* From a picture to masks */

async function predict(blob, quiet = false) {
  source = blob;
  const mine = ++latest;
  if (!models.length) return;  // `start` predicts it
  if (!quiet) at("status").textContent = "Predicting…";
  try {
    const picture = await createImageBitmap(blob).catch(() => {
      throw new Error("This file is not a picture that the browser can show.");
    });
    // One after the other: side by side they would slow each other down and the times would not be comparable.
    const answers = [];
    for (const { side, model } of chosen()) {
      answers.push({ side, model, ...(await (inBrowser(model) ? answerHere : answer)(blob, model)) });
    }
    if (mine !== latest) return;
    show(picture, answers);
    complain(null);
  } catch (error) {
    if (mine !== latest) return;
    clear();
    complain(error);
  }
}

/** Take away what belongs to an earlier picture. */
function clear() {
  for (const side of sides) side.ids = side.blob = side.model = null;
  at("stage").dataset.state = "empty";
  for (const id of ["divider", "compare", "legend", "times", "save"]) at(id).hidden = true;
}

function inBrowser(model) {
  return at("here").checked && model.in_browser;
}

async function answer(blob, model) {
  const began = performance.now();
  const response = await call(`predict?model=${encodeURIComponent(model.name)}`, { method: "POST", body: blob });
  const png = await response.blob();
  const total = performance.now() - began;
  const parts = (response.headers.get("Server-Timing") || "").split(", ").map((part) => part.split(";dur="));
  return { png, total, parts: parts.map(([name, duration]) => [name, Number(duration)]), ...(await decode(png)) };
}

/** The class ids of a mask file; as a picture they are gray values. */
async function decode(png) {
  const bitmap = await createImageBitmap(png, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const ids = new Uint8Array(data.length / 4);
  for (let pixel = 0; pixel < ids.length; pixel++) ids[pixel] = data[4 * pixel];
  return { ids, width: bitmap.width, height: bitmap.height };
}

function show(picture, answers) {
  const canvas = at("picture");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").drawImage(picture, 0, 0);
  for (const side of sides) side.ids = side.blob = side.model = null;
  for (const { side, model, ids, width, height, png } of answers) {
    Object.assign(side, { model, ids, blob: png });
    [side.canvas.width, side.canvas.height] = [width, height];
  }
  at("stage").dataset.state = "picture";
  const two = answers.length > 1;
  for (const id of ["mask-1", "divider", "compare", "share-1", "time-1"]) at(id).hidden = !two;
  at("share-0").textContent = two ? answers[0].model.name : "Area";
  at("time-0").textContent = answers[0].model.name;
  if (two) for (const id of ["share-1", "time-1"]) at(id).textContent = answers[1].model.name;
  answers.forEach(({ model }, index) => { at(`side-${index}`).textContent = model.name; });
  paint();
  split();
  fillLegend(answers);
  fillTimes(answers);
  at("save").hidden = !answers[0].png;
  const notes = new Set(answers.map(({ note }) => note).filter(Boolean));
  at("status").textContent = [`${picture.width} × ${picture.height} pixels`, ...notes].join(". ");
}

function paint() {
  for (const { canvas, ids, model } of sides) {
    if (!ids) continue;
    const colors = new Uint32Array(256);  // RGBA, lowest byte first; 0 is transparent
    for (const { id, name, color: [red, green, blue] } of model.classes) {
      if (!hiddenClasses.has(name)) colors[id] = (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
    }
    const image = new ImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let pixel = 0; pixel < ids.length; pixel++) pixels[pixel] = colors[ids[pixel]];
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
  fade();
}

function fade() {
  const opacity = at("shown").checked ? at("opacity").value / 100 : 0;
  for (const { canvas } of sides) canvas.style.opacity = opacity;
}

function split() {
  const two = !at("compare").hidden;
  const share = Number(at("split").value);
  sides[0].canvas.style.clipPath = two ? `inset(0 ${100 - share}% 0 0)` : "";
  sides[1].canvas.style.clipPath = `inset(0 0 0 ${share}%)`;
  const box = at("picture");
  at("divider").style.left = `${box.offsetLeft + box.offsetWidth * share / 100}px`;
}

/* Legend and times */

function fillLegend(answers) {
  const shares = answers.map(({ ids, model }) => {
    const counts = new Uint32Array(256);
    for (const id of ids) counts[id]++;
    return new Map(model.classes.map(({ id, name }) => [name, counts[id] / ids.length]));
  });
  const colors = new Map(answers.flatMap(({ model }) => model.classes.map(({ name, color }) => [name, color])));
  const present = [...colors.keys()].filter((name) => shares.some((share) => share.get(name) > 0));
  present.sort((one, other) => (shares[0].get(other) || 0) - (shares[0].get(one) || 0));
  const focused = document.activeElement?.dataset?.class;
  at("legend").tBodies[0].replaceChildren(...present.map((name) => legendRow(name, colors.get(name), shares)));
  at("legend").hidden = false;
  if (focused) document.querySelector(`[data-class="${CSS.escape(focused)}"]`)?.focus();
}

function legendRow(name, color, shares) {
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !hiddenClasses.has(name) });
  box.dataset.class = name;
  box.addEventListener("change", () => {
    hiddenClasses[box.checked ? "delete" : "add"](name);
    paint();
  });
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  swatch.style.background = `rgb(${color.join(" ")})`;
  const label = document.createElement("label");
  label.append(box, swatch, name);
  return row(label, ...shares.map((share) => percent(share.get(name) || 0)));
}

function percent(share) {
  return share > 0 && share < 0.001 ? "<0.1%" : `${(100 * share).toFixed(1)}%`;
}

function fillTimes(answers) {
  const durations = answers.map(({ parts }) => new Map(parts));
  const names = new Set(durations.flatMap((parts) => [...parts.keys()]));
  const rows = [...names].map((name) => row(name, ...durations.map((parts) => parts.get(name)?.toFixed(1) ?? "–")));
  rows.push(row("total, in the browser", ...answers.map(({ total }) => total.toFixed(1))));
  at("times").tBodies[0].replaceChildren(...rows);
  at("times").hidden = false;
}

function row(...cells) {
  const line = document.createElement("tr");
  for (const cell of cells) line.insertCell().append(cell);
  return line;
}

function complain(error) {
  at("problem").hidden = !error;
  at("problem").textContent = error ? error.message : "";
  if (error) at("status").textContent = "";
}

/* Where pictures come from */

function take(files) {
  const picture = [...files].find((file) => file.type.startsWith("image/")) || files[0];
  if (!picture) return;
  stopCamera();
  predict(picture);
}

at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => { take(at("file").files); at("file").value = ""; });
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); at("stage").dataset.over = ""; });
document.addEventListener("dragleave", () => delete at("stage").dataset.over);
document.addEventListener("drop", (event) => {
  event.preventDefault();
  delete at("stage").dataset.over;
  take(event.dataTransfer.files);
});

/* Controls */

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key-value").value;
  sessionStorage.setItem("segkc-deploy-key", key);
  start();
});
at("opacity").addEventListener("input", fade);
at("shown").addEventListener("change", fade);
at("split").addEventListener("input", split);
window.addEventListener("resize", split);
for (const { select } of sides) {
  select.addEventListener("change", () => { describe(); if (source) predict(source); });
}
at("here").addEventListener("change", () => { describe(); if (source) predict(source); });
at("stage").addEventListener("pointerdown", dragSplit);
at("stage").addEventListener("pointermove", (event) => { if (event.buttons) dragSplit(event); });
function dragSplit(event) {
  if (at("compare").hidden) return;
  const box = at("picture").getBoundingClientRect();
  at("split").value = 100 * (event.clientX - box.left) / box.width;
  split();
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "m" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("[type=password], select")) return;
  at("shown").checked = !at("shown").checked;
  fade();
});
at("download").addEventListener("click", () => {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(sides[0].blob), download: "mask.png" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
start();
