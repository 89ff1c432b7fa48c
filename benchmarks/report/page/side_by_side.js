// Two layers of each validation image, one over the other, with a line between them that moves.
const setUpPictures = () => {
  const controls = document.getElementById("layers");
  if (!controls) return;
  const comparisons = [...document.querySelectorAll(".comparison")].map((element) => ({
    element, layers: new Map([...element.querySelectorAll("figure[data-layer]")].map((figure) => [figure.dataset.layer, figure])),
  }));
  const titles = new Set(comparisons.flatMap(({ layers }) => [...layers.keys()]));
  const junior = rows.find((row) => row.role === "junior" && titles.has(row.name))?.name;
  const [left, right] = ["left", "right"].map((side) => controls.querySelector(`.${side}-layer`));
  for (const select of [left, right]) for (const title of titles) select.append(new Option(title, title));
  left.value = titles.has("truth") ? "truth" : [...titles][0];
  right.value = junior ?? [...titles].at(-1);

  const show = () => {
    for (const { element, layers } of comparisons)
      for (const [side, select] of [["left", left], ["right", right]]) {
        const figure = layers.get(select.value);
        const picture = element.querySelector(`.slider img.${side}`);
        picture.src = figure ? figure.querySelector("img").src : "data:,";
        picture.alt = figure ? figure.querySelector("img").alt : "not there";
        picture.toggleAttribute("data-photo", select.value === "input");
        element.querySelector(`.${side}-title`).textContent = figure ? figure.querySelector("figcaption").textContent : `${select.value}: not there`;
      }
  };
  for (const select of [left, right]) select.addEventListener("change", show);
  for (const { element } of comparisons) {
    const slider = element.querySelector(".slider");
    const range = slider.querySelector("input");
    range.addEventListener("input", () => slider.style.setProperty("--at", `${range.value}%`));
  }
  show();
};
setUpPictures();
