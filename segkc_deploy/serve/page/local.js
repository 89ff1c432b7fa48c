"use strict";
/* An artifact run in this browser by ONNX Runtime Web: resizing, network and mask as the service does them. */
const loaded = new Map();  // by name the promise of a network

function local(model) {
  if (!loaded.has(model.name)) {
    const loading = load(model);
    loading.catch(() => loaded.delete(model.name));
    loaded.set(model.name, loading);
  }
  return loaded.get(model.name);
}

async function load(model) {
  const base = new URL("browser-runtime/", document.baseURI).href;
  const ort = await import(`${base}ort.wasm.min.mjs`);
  ort.env.wasm.wasmPaths = base;
  ort.env.wasm.numThreads = 1;  // more need headers that forbid other pages' content
  const name = encodeURIComponent(model.name);
  const [file, config] = await Promise.all([
    call(`models/${name}/artifact`).then((response) => response.arrayBuffer()),
    call(`v2/models/${name}/config`).then((response) => response.json()),
  ]);
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  return { ort, session, contract: JSON.parse(config.parameters.contract.string_value) };
}

async function answerHere(blob, model) {
  const { ort, session, contract } = await local(model);
  const began = performance.now();
  const image = await pixelsOf(blob);
  const [height, width] = networkSize(contract, image);
  const input = resizeImage(image, width, height);
  const decoded = performance.now();
  const wanted = contract.outputs.some(({ name }) => name === "logits") ? "logits" : "masks";
  const images = new ort.Tensor("uint8", input.data, [1, height, width, 3]);
  const output = (await session.run({ [contract.input.name]: images }, [wanted]))[wanted];
  const ran = performance.now();
  const ids = wanted === "logits"
    ? maskFromLogits(output.data, output.dims.slice(1), image.width, image.height, contract.align_corners)
    : resizeMask(output.data, width, height, image.width, image.height);
  const ended = performance.now();
  const note = image.translucent || await isDeepPng(blob)
    ? "Transparent pixels and 16-bit colors are not exact in a browser; the mask of the service may differ"
    : null;
  const parts = [["decode", decoded - began], ["network", ran - decoded], ["mask", ended - ran]];
  return { ids, width: image.width, height: image.height, parts, total: ended - began, png: null, note };
}

async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(3 * width * height);
  let translucent = false;
  for (let pixel = 0; pixel < width * height; pixel++) {
    // A canvas multiplies colors by alpha; the service takes them as they are stored.
    if (rgba[4 * pixel + 3] !== 255) translucent = true;
    for (let channel = 0; channel < 3; channel++) data[3 * pixel + channel] = rgba[4 * pixel + channel];
  }
  return { data, width, height, translucent };
}

/** Whether a file is a PNG of 16 bits a channel, of which a canvas keeps 8. */
async function isDeepPng(blob) {
  const header = new DataView(await blob.slice(0, 25).arrayBuffer());
  return header.byteLength === 25 && header.getUint32(0) === 0x89504e47 && header.getUint8(24) === 16;
}

function networkSize({ size, size_multiple: multiple, min_size: least, max_size: most }, { width, height }) {
  if (!multiple) return size;
  const nearest = (side) => Math.floor(side / multiple + 0.5) * multiple;
  return [height, width].map((side, axis) => Math.min(Math.max(nearest(side), least[axis]), most[axis]));
}

/* segkc_deploy/preprocess.py, of which OpenCV's rounding is a part */

function resizeImage(image, width, height) {
  if (image.width > 2 * width || image.height > 2 * height) {
    image = resizeByArea(image, Math.min(image.width, width), Math.min(image.height, height));
  }
  return image.width === width && image.height === height ? image : resizeBilinear(image, width, height);
}

function roundHalfEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** For each output pixel the two input pixels beside it, and the weight of the second one in 1/256. */
function bilinearTaps(from, to) {
  return Array.from({ length: to }, (_, index) => {
    const position = (index + 0.5) / (to / from) - 0.5;
    const before = Math.floor(position);
    if (before < 0) return [0, 0, 0];
    if (before >= from - 1) return [from - 1, from - 1, 0];
    return [before, before + 1, roundHalfEven(256 * (position - before))];
  });
}

function resizeBilinear({ data, width: from }, width, height) {
  const across = bilinearTaps(from, width);
  const down = bilinearTaps(data.length / from / 3, height);
  const resized = new Uint8Array(3 * width * height);
  let place = 0;
  for (const [above, below, weight] of down) {
    for (const [left, right, share] of across) {
      for (let channel = 0; channel < 3; channel++) {
        const top = data[3 * (above * from + left) + channel] * (256 - share) + data[3 * (above * from + right) + channel] * share;
        const bottom = data[3 * (below * from + left) + channel] * (256 - share) + data[3 * (below * from + right) + channel] * share;
        resized[place++] = (top * (256 - weight) + bottom * weight + 32768) >>> 16;
      }
    }
  }
  return { data: resized, width, height };
}

/** For each output pixel the input pixels that it covers, with the share of each. */
function areaTaps(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, index) => {
    const [begin, end] = [index * scale, Math.min((index + 1) * scale, from)];
    const taps = [];
    for (let pixel = Math.floor(begin + 1e-3); pixel < end - 1e-3; pixel++) {
      taps.push([pixel, (Math.min(pixel + 1, end) - Math.max(pixel, begin)) / (end - begin)]);
    }
    return taps;
  });
}

function resizeByArea({ data, width: from, height: high }, width, height) {
  const across = areaTaps(from, width);
  const rows = new Float64Array(3 * width * high);
  for (let y = 0; y < high; y++) {
    across.forEach((taps, x) => {
      for (const [pixel, share] of taps) {
        for (let channel = 0; channel < 3; channel++) {
          rows[3 * (y * width + x) + channel] += data[3 * (y * from + pixel) + channel] * share;
        }
      }
    });
  }
  const resized = new Uint8Array(3 * width * height);
  areaTaps(high, height).forEach((taps, y) => {
    for (let place = 0; place < 3 * width; place++) {
      let sum = 0;
      for (const [pixel, share] of taps) sum += rows[3 * width * pixel + place] * share;
      resized[3 * width * y + place] = roundHalfEven(sum);
    }
  });
  return { data: resized, width, height };
}

function resizeMask(ids, from, high, width, height) {
  // A pixel whose center lies between two takes the second one; OpenCV takes one or the other.
  const nearest = (source, size) => Array.from({ length: size }, (_, index) => Math.floor((2 * index + 1) * source / (2 * size)));
  const [across, down] = [nearest(from, width), nearest(high, height)];
  const resized = new Uint8Array(width * height);
  let place = 0;
  for (const y of down) for (const x of across) resized[place++] = ids[y * from + x];
  return resized;
}

/** The argmax of bilinearly upsampled logits (rows, columns, classes). */
function maskFromLogits(logits, [rows, columns, classes], width, height, alignCorners) {
  const taps = (from, to) => Array.from({ length: to }, (_, index) => {
    const position = alignCorners ? index * ((from - 1) / Math.max(to - 1, 1)) : (index + 0.5) * (from / to) - 0.5;
    const before = Math.floor(position);
    return [Math.max(before, 0), Math.min(before + 1, from - 1), position - before];
  });
  const across = taps(columns, width);
  const ids = new Uint8Array(width * height);
  let place = 0;
  for (const [above, below, down] of taps(rows, height)) {
    for (const [left, right, share] of across) {
      const topLeft = (above * columns + left) * classes, topRight = (above * columns + right) * classes;
      const bottomLeft = (below * columns + left) * classes, bottomRight = (below * columns + right) * classes;
      let best = -Infinity, winner = 0;
      for (let id = 0; id < classes; id++) {
        const start = logits[topLeft + id] + (logits[bottomLeft + id] - logits[topLeft + id]) * down;
        const end = logits[topRight + id] + (logits[bottomRight + id] - logits[topRight + id]) * down;
        const score = start + (end - start) * share;
        if (score > best) { best = score; winner = id; }
      }
      ids[place++] = winner;
    }
  }
  return ids;
}
