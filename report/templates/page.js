(() => {
  const viewer = document.getElementById("viewer");
  const view = viewer.querySelector(".stage-view");
  const [under, over] = view.querySelectorAll("img");
  const slider = viewer.querySelector("input");
  const level = viewer.querySelector(".level");
  const pairs = [...document.querySelectorAll(".pair")];
  const TAP_PX = 8, SWIPE_PX = 48, GRIP_PX = { mouse: 14, pen: 24, touch: 32 }, PAN_PX = 60;
  const fingers = new Map();
  let current = 0;
  let drag = null;
  let at = { scale: 1, x: 0, y: 0 }; // CSS px per image px; the image's corner in the frame, CSS px

  const within = (value, low, high) => Math.min(high, Math.max(low, value));
  const width = () => over.naturalWidth || 1;
  const height = () => over.naturalHeight || 1;
  const fit = () => Math.min(view.clientWidth / width(), view.clientHeight / height());
  const isZoomed = () => at.scale > 1.01 * fit();

  const cut = (percent) => {
    slider.value = percent;
    view.style.setProperty("--cut", percent + "%");
  };
  const put = (scale, x, y) => {
    const inside = (offset, frame, side) =>
      side <= frame ? (frame - side) / 2 : within(offset, frame - side, 0);
    at = {
      scale,
      x: inside(x, view.clientWidth, width() * scale),
      y: inside(y, view.clientHeight, height() * scale),
    };
    Object.entries({ ...at, width: width(), height: height() }).forEach(([name, value]) =>
      view.style.setProperty("--" + name, value));
    view.classList.toggle("zoomed", isZoomed());
    view.classList.toggle("pixels", isZoomed() && scale * devicePixelRatio >= 2);
    level.textContent = Math.round(100 * scale * devicePixelRatio) + " %";
  };
  // what lies at (fromX, fromY) of the frame comes to (x, y)
  const zoom = (scale, x = view.clientWidth / 2, y = view.clientHeight / 2, fromX = x, fromY = y) => {
    const next = within(scale, fit(), 8 * Math.max(1 / devicePixelRatio, fit()));
    const ratio = next / at.scale;
    put(next, x - (fromX - at.x) * ratio, y - (fromY - at.y) * ratio);
  };
  const pan = (x, y) => put(at.scale, at.x + x, at.y + y);
  const whole = () => zoom(fit());
  // 1:1 (one image pixel on one screen pixel), or the next doubling that is larger than the frame
  const closer = (x, y) => {
    let close = 1 / devicePixelRatio;
    while (close < 1.2 * fit()) close *= 2;
    zoom(at.scale < 0.99 * close ? close : at.scale < 1.99 * close ? 2 * close : fit(), x, y);
  };
  const show = (index) => {
    current = (index + pairs.length) % pairs.length;
    const pair = pairs[current];
    const [reference, test] = pair.querySelectorAll("img");
    under.src = reference.src;
    over.src = test.src;
    viewer.querySelector(".caption").textContent =
      `${pair.dataset.id}: ${pair.dataset.label} (${pair.dataset.votes}); ${pair.dataset.facts}`;
    if (!viewer.open) viewer.showModal();
    cut(50);
    whole();
  };
  over.addEventListener("load", whole);
  pairs.forEach((pair, index) => pair.addEventListener("click", () => show(index)));
  slider.addEventListener("input", () => cut(slider.value));
  addEventListener("resize", () => viewer.open && (view.matches(".zoomed") ? pan(0, 0) : whole()));

  const spot = (event) => {
    const box = view.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const distance = (one, two) => Math.hypot(one.x - two.x, one.y - two.y);
  const meaning = (type) => {
    const line = (view.clientWidth * slider.value) / 100;
    if (Math.abs(drag.from.x - line) <= GRIP_PX[type]) return "cut";
    return isZoomed() ? "pan" : type === "mouse" ? "cut" : "swipe";
  };
  view.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    view.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, spot(event));
    drag = fingers.size === 1 ? { from: spot(event), does: "" } : { does: "pan" };
  });
  view.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = spot(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const ratio = distance(now, other) / Math.max(1, distance(before, other));
      const middle = [now, before].flatMap((one) => [(one.x + other.x) / 2, (one.y + other.y) / 2]);
      zoom(at.scale * ratio, ...middle);
    } else {
      if (!drag.does && distance(now, drag.from) > TAP_PX) drag.does = meaning(event.pointerType);
      if (drag.does === "cut") cut(within((100 * now.x) / view.clientWidth, 0, 100));
      if (drag.does === "pan") pan(now.x - before.x, now.y - before.y);
    }
    fingers.set(event.pointerId, now);
  });
  view.addEventListener("pointerup", (event) => {
    if (!fingers.delete(event.pointerId) || fingers.size) return;
    const now = spot(event);
    if (!drag.does) closer(now.x, now.y);
    const far = drag.does === "swipe" ? now.x - drag.from.x : 0;
    if (Math.abs(far) > SWIPE_PX) show(current - Math.sign(far));
  });
  view.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  view.addEventListener("wheel", (event) => {
    const { x, y } = spot(event);
    zoom(at.scale * Math.exp(-within(event.deltaY, -100, 100) / 300), x, y);
    event.preventDefault();
  }, { passive: false });

  const actions = {
    previous: () => show(current - 1),
    next: () => show(current + 1),
    out: () => zoom(at.scale / 1.5),
    in: () => zoom(at.scale * 1.5),
    close: () => viewer.close(),
  };
  const keys = {
    ArrowLeft: actions.previous,
    ArrowRight: actions.next,
    "+": actions.in,
    "=": actions.in,
    "-": actions.out,
    0: whole,
    1: () => zoom(1 / devicePixelRatio),
    ArrowUp: () => cut(within(+slider.value + 2, 0, 100)),
    ArrowDown: () => cut(within(slider.value - 2, 0, 100)),
    " ": () => view.classList.add("blink"),
  };
  const moves = {
    ArrowLeft: () => pan(PAN_PX, 0),
    ArrowRight: () => pan(-PAN_PX, 0),
    ArrowUp: () => pan(0, PAN_PX),
    ArrowDown: () => pan(0, -PAN_PX),
  };
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) actions[button.dataset.does]();
    else if (event.target === viewer) viewer.close();
  });
  // on the document: after a click on the picture nothing in the dialog has the focus
  document.addEventListener("keydown", (event) => {
    if (!viewer.open) return;
    const isPress = event.key === " " && event.target.closest("button");
    const action = (event.shiftKey && moves[event.key]) || keys[event.key];
    if (isPress || !action || event.ctrlKey || event.metaKey || event.altKey) return;
    action();
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => event.key === " " && view.classList.remove("blink"));
  viewer.addEventListener("close", () => view.classList.remove("blink"));
})();
