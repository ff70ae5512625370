(() => {
  const viewer = document.getElementById("viewer");
  const view = viewer.querySelector(".stage-view");
  const slider = viewer.querySelector("input");
  const pairs = [...document.querySelectorAll(".pair")];
  let current = 0;

  const cut = (percent) => {
    slider.value = percent;
    view.style.setProperty("--cut", percent + "%");
  };
  const show = (index) => {
    current = (index + pairs.length) % pairs.length;
    const pair = pairs[current];
    const [reference, test] = pair.querySelectorAll("img");
    view.querySelector(".under").src = reference.src;
    view.querySelector(".over").src = test.src;
    viewer.querySelector(".caption").textContent =
      `${pair.dataset.id}: ${pair.dataset.label} (${pair.dataset.votes}); ${pair.dataset.facts}`;
    cut(50);
    if (!viewer.open) viewer.showModal();
  };
  const follow = (event) => {
    const box = view.getBoundingClientRect();
    cut(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
  };

  pairs.forEach((pair, index) => pair.addEventListener("click", () => show(index)));
  slider.addEventListener("input", () => cut(slider.value));
  view.addEventListener("pointerdown", (event) => {
    view.setPointerCapture(event.pointerId);
    follow(event);
  });
  view.addEventListener("pointermove", (event) => event.buttons && follow(event));
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(current + 1);
    else if (event.key === "ArrowLeft") show(current - 1);
    else if (event.key === " ") view.classList.add("blink");
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("keyup", (event) => event.key === " " && view.classList.remove("blink"));
})();
