{
  const { runs, samples } = read("captions-data");
  const wrong = samples.map((sample) => sample.captions.map((caption) => caption.wrong.length));
  const spread = wrong.map((counts) => Math.max(...counts) - Math.min(...counts));
  const total = wrong.map((counts) => counts.reduce((sum, count) => sum + count, 0));
  const differs = (sample) => new Set(sample.captions.map((caption) => caption.wrong.join())).size > 1;
  let shown = [];
  let place = 0;

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

  function go(to) {
    place = to;
    const sample = samples[shown[place]];
    at("previous").disabled = !sample || place === 0;
    at("next").disabled = !sample || place === shown.length - 1;
    at("picture").replaceChildren(...(sample && sample.picture ? [picture(sample)] : []));
    at("captions").replaceChildren(...(sample ? sample.captions.map(article) : []));
    const task = sample && sample.task ? ` of ${sample.task}` : "";
    at("place").textContent = sample ? `Image ${sample.id}${task}, ${place + 1} of ${shown.length}` : "No image fits this choice.";
    at("truth").textContent = sample ? `The image shows: ${sample.truth.join(", ") || "none of the 80 objects"}.` : "";
  }

  function choose() {
    const filter = at("filter").value;
    shown = samples.map((_, index) => index).filter((index) =>
      filter === "all" || (filter === "differ" ? differs(samples[index]) : wrong[index][Number(filter)] > 0));
    const by = { difference: spread, wrong: total }[at("order").value];
    if (by) shown.sort((a, b) => by[b] - by[a] || a - b);
    go(0);
  }

  function jump() {
    const id = at("jump").value.trim();
    if (!samples.some((sample) => String(sample.id) === id)) {
      at("place").textContent = `There is no image ${id} here.`;
      return;
    }
    at("filter").value = "all";
    choose();
    go(shown.findIndex((index) => String(samples[index].id) === id));
  }

  at("filter").addEventListener("change", choose);
  at("order").addEventListener("change", choose);
  at("previous").addEventListener("click", () => go(place - 1));
  at("next").addEventListener("click", () => go(place + 1));
  at("jump").addEventListener("change", jump);
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  const varied = samples.some(differs);
  at("filter").value = varied ? "differ" : "all";
  at("order").value = varied ? "difference" : "wrong";
  at("browser").hidden = false;
  choose();
}
