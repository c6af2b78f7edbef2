{
  const { runs, splits, texts, asked } = read("answers-data");
  const AT_ONCE = 50;
  const isWrong = (label, answer) => Boolean(answer) && answer[1] !== label;
  const differs = ([, , , , told]) => new Set(told.filter(Boolean).map((answer) => answer[1])).size > 1;
  const anyWrong = ([, , , label, told]) => told.some((answer) => isWrong(label, answer));
  const said = (flag) => (flag ? "yes" : "no");
  let shown = [];

  function cell(label, ...content) {
    const made = element("td", "", element("div", "", ...content));
    made.dataset.label = label;
    return made;
  }

  function answered(label, run, answer) {
    if (!answer) return cell(runs[run], "");
    const wrong = isWrong(label, answer);
    const reading = answer[1] === null ? [element("small", "", " (read as neither)")] : [];
    return cell(runs[run], wrong ? element("b", "unsupported", "✗ wrong") : "✓", ` ${texts[answer[0]] || "(empty)"}`,
      ...reading);
  }

  function line([split, image, question, label, told]) {
    const heading = element("th", "", texts[question]);
    heading.scope = "row";
    const where = [...(splits[split] ? [splits[split]] : []), ...(image === null ? [] : [`image ${image}`])];
    if (where.length) heading.append(element("small", "", ` ${where.join(", ")}`));
    return element("tr", "", heading, cell("label", said(label)), ...told.map((answer, run) => answered(label, run, answer)));
  }

  function more() {
    const from = at("answers").children.length;
    at("answers").append(...shown.slice(from, from + AT_ONCE).map(line));
    const there = at("answers").children.length;
    at("answers-place").textContent = shown.length
      ? `${there} of ${shown.length} questions shown, of ${asked.length} asked` : "No question fits this choice.";
    at("more").hidden = there === shown.length;
  }

  function choose() {
    const split = at("split").value;
    const which = at("which").value;
    shown = asked.filter((one) => (split === "all" || one[0] === Number(split)) &&
      (which === "all" || (which === "differ" && differs(one)) || (which === "wrong" && anyWrong(one)) ||
        isWrong(one[3], one[4][Number(which)])));
    at("answers").replaceChildren();
    more();
  }

  at("split").addEventListener("change", choose);
  at("which").addEventListener("change", choose);
  at("more").addEventListener("click", more);
  at("which").value = asked.some(differs) ? "differ" : asked.some(anyWrong) ? "wrong" : "all";
  at("asking").hidden = false;
  choose();
}
