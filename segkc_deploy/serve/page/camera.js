"use strict";
/* The camera: one picture after the other while the stream is the one that was started last. */
let stream = null;
let turn = 0;  // grows with each start and stop; a permission that comes later than a stop is not used

async function startCamera() {
  const mine = ++turn;
  at("camera").disabled = true;  // until the permission is given or refused
  let opened;
  try {
    opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    if (mine !== turn) return;
    stopCamera();
    const secure = window.isSecureContext ? error.message : "browsers allow it on localhost and over HTTPS alone";
    return complain(new Error(`The camera cannot be used: ${secure}`));
  }
  if (mine !== turn) return stopTracks(opened);
  stream = opened;
  at("camera").disabled = false;
  at("camera").setAttribute("aria-pressed", "true");
  at("camera").textContent = "Stop the camera";
  try {
    await predictFrames(opened);
  } catch (error) {
    if (mine === turn) complain(error);  // else it was stopped before its first frame
  }
  if (mine === turn) stopCamera();
}

async function predictFrames(opened) {
  const video = Object.assign(document.createElement("video"), { srcObject: opened, muted: true, playsInline: true });
  await video.play();
  const frame = new OffscreenCanvas(1, 1);
  while (stream === opened && opened.active) {
    // Read each time: a phone that is turned gives frames of another size.
    [frame.width, frame.height] = [video.videoWidth, video.videoHeight];
    frame.getContext("2d").drawImage(video, 0, 0);
    const began = performance.now();
    const picture = await frame.convertToBlob({ type: "image/jpeg", quality: 0.92 });
    if (stream !== opened) return;
    await predict(picture, true);
    if (stream !== opened || !at("problem").hidden) return;
    at("status").textContent = `${(1000 / (performance.now() - began)).toFixed(1)} pictures/s`;
    await new Promise(requestAnimationFrame);
  }
}

function stopTracks(opened) {
  for (const track of opened.getTracks()) track.stop();
}

function stopCamera() {
  turn++;
  if (stream) stopTracks(stream);
  stream = null;
  at("camera").disabled = false;
  at("camera").setAttribute("aria-pressed", "false");
  at("camera").textContent = "Camera";
}

at("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
