"""The formulas of the methods in plain loops, for naive_llava.py: one key and one head at a time."""

from __future__ import annotations

import numpy as np
from naive_llava import Fix


def columns(row, *kinds):
    return [j for j, kind in enumerate(row.kinds) if kind in kinds]


def hgai(alpha, layers):
    def edit(row):
        for j in columns(row, "image"):
            push = alpha * sum(abs(scores[j]) for scores in row.scores) / len(row.scores)
            for scores in row.scores:
                scores[j] += push

    return Fix(edit_scores=edit, layers=layers)


def vaf(enhance, suppress, layers):
    def edit(row):
        for scores in row.scores:
            for j in columns(row, "image"):
                scores[j] *= enhance
            for j in columns(row, "before"):
                scores[j] *= suppress

    return Fix(edit_scores=edit, text_rows=True, layers=layers)


def iat(alpha, layers):
    def edit(row):
        for scores in row.scores:
            for j in columns(row, "generated"):
                scores[j] += alpha * abs(scores[j])

    return Fix(edit_scores=edit, layers=layers)


def spin(kept, factor, layers):
    def edit(row):
        image = columns(row, "image")
        if not image:
            return
        visual = [sum(scores[j] for j in image) for scores in row.scores]
        ranked = sorted(range(len(visual)), key=lambda head: -visual[head])
        for head in ranked[int(kept * len(visual)) :]:
            row.weights[head] = row.weights[head] * factor

    return Fix(edit_weights=edit, layers=layers)


def adhh(heads, threshold, depth):
    def edit(row):
        text = columns(row, "after", "generated")
        for head, weights in enumerate(row.weights):
            if (row.layer, head) in heads and text and sum(weights[j] for j in text) >= threshold:
                for j in text:
                    weights[j] = 0.0

    return Fix(edit_weights=edit, layers=(0, depth))


def var(dims, tau, rho, image_mass, p, layers):
    def is_sink(state):
        return max(abs(state[d]) for d in dims) / np.sqrt((state * state).mean() + 1e-6) > tau

    def edit(row):
        image = columns(row, "image")
        sinks = [j for j in columns(row, "before", "image", "after") if is_sink(row.inputs[j])]
        image_sinks = [j for j in image if j in sinks]
        others = [j for j in image if j not in sinks]
        if not image_sinks:
            return
        for head, weights in enumerate(row.weights):
            mass = sum(weights[j] for j in image)
            portion = sum(weights[j] for j in image_sinks) / sum(weights[j] + 1e-6 for j in image)
            rest = sum(weights[j] for j in others)
            if mass < image_mass or portion > rho or rest == 0:
                continue
            freed = (1 - p) * sum(weights[j] for j in sinks)
            new = weights.copy()
            for j in sinks:
                new[j] = p * weights[j]
            for j in others:
                new[j] = weights[j] + freed * weights[j] / rest
            row.weights[head] = new

    return Fix(edit_weights=edit, text_rows=True, layers=layers)


def adaiat(ratios, thresholds, alpha, layers):
    def edit(row):
        generated = columns(row, "generated")
        if not generated:
            return
        attention = sum(sum(weights[j] for j in generated) / len(generated) for weights in row.weights)
        if attention >= thresholds[row.layer]:
            return
        for head, weights in enumerate(row.weights):
            new = weights.copy()
            for j in generated:
                new[j] = weights[j] * max(0.0, 1 + alpha * (ratios[row.layer][head] - 1))
            row.weights[head] = new / new.sum()

    return Fix(edit_weights=edit, layers=layers)
