{
  const { runs, questions } = read("answers-data");
  const AT_ONCE = 50;
  const isWrong = (one, answer) => Boolean(answer) && answer[1] !== one.label;
  const differs = (one) => new Set(one.answers.filter(Boolean).map((answer) => answer[1])).size > 1;
  const anyWrong = (one) => one.answers.some((answer) => isWrong(one, answer));
  let shown = [];

  function cell(label, ...content) {
    const made = element("td", "", element("div", "", ...content));
    made.dataset.label = label;
    return made;
  }

  function answered(one, answer, run) {
    if (!answer) return cell(runs[run], "");
    const reading = answer[1] === null ? [element("small", "", " (read as neither)")] : [];
    return cell(runs[run], isWrong(one, answer) ? element("b", "unsupported", "✗ wrong") : "✓", ` ${answer[0] || "(empty)"}`,
      ...reading);
  }

  function line(one) {
    const heading = element("th", "", one.question);
    heading.scope = "row";
    const where = [...(one.split ? [one.split] : []), ...(one.image === null ? [] : [`image ${one.image}`])];
    if (where.length) heading.append(element("small", "", ` ${where.join(", ")}`));
    return element("tr", "", heading, cell("label", one.label), ...one.answers.map((answer, run) => answered(one, answer, run)));
  }

  function more() {
    const from = at("answers").children.length;
    at("answers").append(...shown.slice(from, from + AT_ONCE).map(line));
    const there = at("answers").children.length;
    at("answers-place").textContent = shown.length
      ? `${there} of ${shown.length} questions shown, of ${questions.length} asked` : "No question fits this choice.";
    at("more").hidden = there === shown.length;
  }

  function choose() {
    const split = at("split").value;
    const which = at("which").value;
    shown = questions.filter((one) => (split === "all" || one.split === split) &&
      (which === "all" || (which === "differ" && differs(one)) || (which === "wrong" && anyWrong(one)) ||
        isWrong(one, one.answers[Number(which)])));
    at("answers").replaceChildren();
    more();
  }

  at("split").addEventListener("change", choose);
  at("which").addEventListener("change", choose);
  at("more").addEventListener("click", more);
  at("which").value = questions.some(differs) ? "differ" : questions.some(anyWrong) ? "wrong" : "all";
  at("asking").hidden = false;
  choose();
}
