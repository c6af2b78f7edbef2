{
  const { runs, samples } = read("captions-data");
  const wrong = samples.map((sample) => sample.captions.map((caption) => caption.wrong.length));
  const spread = wrong.map((counts) => Math.max(...counts) - Math.min(...counts));
  const total = wrong.map((counts) => counts.reduce((sum, count) => sum + count, 0));
  const named = (sample) => (sample.task ? `${sample.task}:${sample.id}` : `${sample.id}`);
  const differs = (sample) => new Set(sample.captions.map((caption) => caption.wrong.join())).size > 1;
  let shown = [];
  let place = 0;

  function select() {
    const filter = at("filter").value;
    const order = at("order").value;
    shown = samples.map((_, index) => index).filter((index) =>
      filter === "all" || (filter === "differ" ? differs(samples[index]) : wrong[index][Number(filter)] > 0));
    const by = order === "difference" ? spread : order === "wrong" ? total : null;
    if (by) shown.sort((a, b) => by[b] - by[a] || a - b);
  }

  function coloured(segment) {
    if (typeof segment === "string") return segment;
    const [text, object, supported] = segment;
    const mark = element("mark", supported ? "supported" : "unsupported", text);
    mark.title = `${object}: ${supported ? "in the image" : "not in the image"}`;
    if (!supported) mark.append(element("span", "hidden", " (unsupported)"));
    return mark;
  }

  function article(caption, run) {
    const figures = [
      `${caption.words} words`,
      `${caption.mentions} mentions`,
      ...(caption.rep_4 ? [`${caption.rep_4}% repeats`] : []),
      ...(caption.ended ? [] : ["cut off"]),
    ];
    const listed = (word, className, objects) =>
      objects.length ? [element("p", "objects", `${word}: `, element("span", className, objects.join(", ")))] : [];
    const text = element("p", "text", ...caption.text.map(coloured));
    if (!caption.text.length) text.append(element("em", "", "(empty)"));
    return element("article", "", element("h3", "", runs[run]), element("p", "figures", figures.join(" · ")), text,
      ...listed("Unsupported", "unsupported", caption.wrong), ...listed("Missed", "missed", caption.missed));
  }

  function picture(sample) {
    const image = element("img");
    image.src = sample.picture;
    image.alt = `Image ${sample.id}`;
    const button = element("button", "", image);
    button.type = "button";
    button.title = "Enlarge or shrink";
    button.addEventListener("click", () => at("image").classList.toggle("large"));
    return button;
  }

  function show() {
    const sample = samples[shown[place]];
    at("previous").disabled = !sample || place === 0;
    at("next").disabled = !sample || place === shown.length - 1;
    at("picture").replaceChildren();
    at("captions").replaceChildren();
    at("truth").textContent = "";
    if (!sample) {
      at("place").textContent = "No image fits this choice.";
      return;
    }
    const task = sample.task ? ` of ${sample.task}` : "";
    at("place").textContent = `Image ${sample.id}${task}, ${place + 1} of ${shown.length}`;
    at("truth").textContent = `The image shows: ${sample.truth.join(", ") || "none of the 80 objects"}.`;
    if (sample.picture) at("picture").append(picture(sample));
    at("captions").append(...sample.captions.map(article));
  }

  function go(to) {
    if (to < 0 || to >= shown.length) return;
    place = to;
    show();
    history.replaceState(null, "", `#image=${encodeURIComponent(named(samples[shown[place]]))}`);
  }

  function jump(name) {
    const matches = (index) => named(samples[index]) === name || String(samples[index].id) === name;
    let to = shown.findIndex(matches);
    if (to < 0) {
      if (!samples.some((_, index) => matches(index))) {
        at("place").textContent = `There is no image ${name} here.`;
        return;
      }
      at("filter").value = "all";
      select();
      to = shown.findIndex(matches);
    }
    go(to);
  }

  function follow() {
    const found = /^#image=(.+)$/.exec(location.hash);
    if (found) jump(decodeURIComponent(found[1]));
  }

  function choose() {
    select();
    place = 0;
    show();
  }

  at("filter").addEventListener("change", choose);
  at("order").addEventListener("change", choose);
  at("previous").addEventListener("click", () => go(place - 1));
  at("next").addEventListener("click", () => go(place + 1));
  at("jump").addEventListener("change", () => at("jump").value.trim() && jump(at("jump").value.trim()));
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);
  addEventListener("keydown", (event) => {
    const busy = event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT)$/.test(event.target.tagName);
    const scrolls = event.target.closest && event.target.closest(".wide");
    if (busy || scrolls) return;
    if (event.key === "ArrowLeft") go(place - 1);
    if (event.key === "ArrowRight") go(place + 1);
  });

  if (samples.some(differs)) {
    at("filter").value = "differ";
    at("order").value = "difference";
  } else {
    at("order").value = "wrong";
  }
  at("browser").hidden = false;
  choose();
  follow();
}
