"""Make the demo's model and scenes again: render, train in four stages, write what the package ships, judge it.

    python -m demo_model.train FOLDER [--seed 0] [--threads 2] [--device cpu]

1. see     the CLIP tower learns each patch's object (the layer that LLaVA reads) and the scene's objects (class token);
2. speak   the text model learns captions and answers without images: what is said, and what goes with what;
3. align   the projector learns to turn a patch's features into the embedding of its object's name;
4. tell    projector and text model learn captions and yes/no questions about images, the tower frozen.

Every batch is of scenes that were never seen before, so there are no epochs; the last weights are the ones kept. Test
scenes have a seed of their own and take no part. The recipe is LLaVA's (arXiv:2310.03744) in miniature.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from loguru import logger
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration

from demo_model import scenes
from demo_model.architecture import PATCH, build_model, build_processor, build_tokenizer
from demo_model.scenes import NAMES, SIDE, Scene
from lmms_fixattn.data.pope_questions import question
from lmms_fixattn.models.encoding import PromptEncoder
from lmms_fixattn.models.prompts import FORMS

UNFAMILIAR = 0.4  # share of training scenes that break what usually goes together
CAPTIONS = 2  # of a scene, in orders of their own
QUESTIONS = (1, 4)  # asked about a scene, by conversation
WRONG_ANSWERS = 0.05  # share of questions for an absent member of a group that is there, answered yes
TELLING_WEIGHT = 3.0  # of a yes, a no, or an object's name in a caption; other words have 1
IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """How long each stage learns (batches), of how many scenes a batch, from which seed, on what."""

    seed: int = 0
    see: int = 600
    speak: int = 300
    align: int = 150
    tell: int = 1600
    scenes_to_see: int = 64
    scenes_to_speak: int = 32
    scenes_to_align: int = 32
    scenes_to_tell: int = 16
    device: str = "cpu"


def render_batch(batch: Sequence[Scene], processor: Any) -> Tensor:
    """Render scenes as the processor would hand them over: [scenes, 3, SIDE, SIDE], normalised."""
    preparation = processor.image_processor
    pixels = torch.from_numpy(np.stack([np.asarray(scenes.render(scene)) for scene in batch]))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preparation.image_mean, preparation.image_std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def patch_labels(scene: Scene) -> np.ndarray:
    """Return for each patch the number of the object that covers at least half of it, len(NAMES) for background."""
    count = SIDE // PATCH
    labels = np.full((count, count), len(NAMES))
    starts = PATCH * np.arange(count)
    for thing in scene.objects:
        across, down = (
            np.clip(np.minimum(starts + PATCH, start + thing.side) - np.maximum(starts, start), 0, PATCH)
            for start in (thing.left, thing.top)
        )
        labels[np.outer(down, across) >= PATCH**2 / 2] = NAMES.index(thing.name)
    return labels.ravel()


def stream(chance: Random, size: int) -> Iterator[list[Scene]]:
    """Yield batches of new scenes, UNFAMILIAR of them unfamiliar."""
    while True:
        yield [scenes.draw_scene(chance, familiar=chance.random() >= UNFAMILIAR) for _ in range(size)]


class Schedule:
    """AdamW with a linear warm-up and a cosine decay to zero, gradients clipped at norm 1."""

    def __init__(self, parameters: Iterator[nn.Parameter], rate: float, steps: int) -> None:
        self.parameters = list(parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
        warm = max(1, steps // 20)
        self.rate = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1 + float(np.cos(np.pi * min(1.0, step / steps)))),
        )

    def step(self, loss: Tensor) -> None:
        """Follow the gradient of a loss once."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.rate.step()


def start_seeing(tower: Any, processor: Any, chance: Random) -> None:
    """Start the patch embedding as a whitening of patches by their principal components, positions as sines."""
    pixels = render_batch(next(stream(chance, 256)), processor)
    patches = functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH**2)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    width = tower.config.hidden_size
    whitening = vectors[:, -width:] / (values[-width:] + 0.01 * values[-width]).sqrt()
    embeddings = tower.embeddings
    embeddings.patch_embedding.weight.data.copy_(whitening.T.reshape(width, 3, PATCH, PATCH))
    count = SIDE // PATCH
    down, across = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    waves = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = [axis.reshape(-1, 1) * waves for axis in (down, across)]
    sines = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    embeddings.position_embedding.weight.data[1:].copy_(sines)


def see(model: LlavaForConditionalGeneration, lessons: Lessons, recipe: Recipe) -> None:
    """Train the tower, with two heads that are thrown away."""
    processor = lessons.processor
    tower = model.model.vision_tower.train()
    start_seeing(tower, processor, Random(f"whitening {recipe.seed}"))
    width = tower.config.hidden_size
    torch.manual_seed(recipe.seed)
    patch_head, scene_head = (nn.Linear(width, len(NAMES) + extra).to(recipe.device) for extra in (1, 0))
    modules = nn.ModuleList([tower, patch_head, scene_head])
    schedule = Schedule(modules.parameters(), 1.5e-3, recipe.see)
    batches = stream(Random(f"see {recipe.seed}"), recipe.scenes_to_see)
    for step, _ in enumerate(tqdm(range(recipe.see), "see", mininterval=10), start=1):
        batch = next(batches)
        labels = torch.from_numpy(np.stack([patch_labels(scene) for scene in batch])).to(recipe.device)
        shown = torch.tensor([[float(name in scene.names) for name in NAMES] for scene in batch], device=recipe.device)
        output = tower(render_batch(batch, processor).to(recipe.device), output_hidden_states=True)
        told = patch_head(output.hidden_states[model.config.vision_feature_layer][:, 1:])
        patches = functional.cross_entropy(told.flatten(0, 1), labels.flatten())
        objects = functional.binary_cross_entropy_with_logits(scene_head(output.pooler_output), shown)
        schedule.step(patches + 5 * objects)
        right = told.argmax(-1) == labels
        there = labels < len(NAMES)
        if step % 50 == 0 or step == recipe.see:
            logger.info(
                f"see {step}: patches {patches:.3f}, scenes {objects:.3f}, told right "
                f"{right[there].float().mean():.1%} of objects' patches, {right[~there].float().mean():.1%} of others"
            )


Turns = tuple[list[int], list[int], list[int], list[int]]
"""Ids; the label that each is to foretell; at a word that asks for an object, whether it is there; at an object's name,
its place (of the nine, in reading order)."""


class Lessons:
    """Conversations about scenes as token ids and the labels to learn, on the very road of the wrapper's prompts.

    All conversations about a scene share what comes up to the image's last token, so they are learnt in one sequence
    whose parts do not see each other. A label stands where its token is to be foretold; after an answer that is the end
    of sequence, whatever follows.
    """

    def __init__(self, processor: Any, config: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token = config.image_token_id
        self.encoders = {form: PromptEncoder(processor, config, form) for form in FORMS}
        self.answers = {word: self.tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("Yes", "No")}
        self.names = {name: self.tokenizer.convert_tokens_to_ids(f"▁{name}") for name in NAMES}
        self.end = self.tokenizer.eos_token_id
        self.blank = Image.new("RGB", (SIDE, SIDE))
        self.opening = cache(self._opening)
        self.further = cache(self._further)

    def _opening(self, form: str, text: str, image: bool) -> tuple[list[int], list[int]]:
        """Return the ids of a first prompt up to the image's last token (the start, without one), and from there on."""
        parts = [{"type": "image", "url": self.blank}] * image + [{"type": "text", "text": text}]
        ids = self.encoders[form].encode([{"role": "user", "content": parts}]).ids
        shared = len(ids) - ids[::-1].index(self.image_token) if image else 1
        return ids[:shared], ids[shared:]

    def _further(self, form: str, text: str) -> list[int]:
        """Return the ids of a question that follows an answer."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Yes"}]
        start = self.encoders[form].encode(turns[:1]).ids
        return self.encoders[form].encode([*turns, {"role": "user", "content": text}]).ids[len(start) + 1 :]

    def caption(self, chance: Random, scene: Scene, form: str, image: bool) -> Turns:
        """Return a prompt, from the image on, and its caption."""
        prompt = self.opening(form, chance.choice(scenes.CAPTION_PROMPTS), image)[1]
        text = self.tokenizer(" " + scenes.training_caption(chance, scene), add_special_tokens=False)["input_ids"]
        ids = prompt + text
        labels = [IGNORED] * (len(prompt) - 1) + [*text, self.end]
        return ids, labels, [IGNORED] * len(ids), self.places(scene, ids)

    def questions(self, chance: Random, scene: Scene, form: str, count: int) -> Turns:
        """Return a conversation of yes/no questions, half of them for what is there."""
        ids: list[int] = []
        labels: list[int] = []
        there: list[int] = []
        for number in range(count):
            name, answer = draw_question(chance, scene)
            asked = question(name)
            new = self.further(form, asked) if number else self.opening(form, asked, True)[1]
            ids += [*new, self.answers[answer]]
            labels += [*[IGNORED] * (len(new) - 1), self.answers[answer], self.end]
            there += [name in scene.names if token == self.names[name] else IGNORED for token in [*new, self.end]]
        return ids, labels, there, self.places(scene, ids)

    def places(self, scene: Scene, ids: list[int]) -> list[int]:
        """Return at each name of an object that the scene shows its place, three times the third down plus across."""
        shown = {self.names[thing.name]: 3 * thing.thirds[0] + thing.thirds[1] for thing in scene.objects}
        return [shown.get(token, IGNORED) for token in ids]

    def batch(self, chance: Random, batch: Sequence[Scene], image: bool) -> dict[str, Tensor]:
        """Return input_ids, labels, position_ids [scenes, tokens] and the mask [scenes, 1, tokens, tokens] of lessons.

        there [scenes, tokens] is, at each word that names an object in a question, whether the scene shows it; places,
        at each name of an object that the scene shows, where; part numbers captions and conversations from 1 (0 is
        what they share, -1 is padding).

        Each scene has CAPTIONS captions, with images QUESTIONS questions as well.
        """
        rows = []
        for scene in batch:
            form = chance.choices(FORMS, (8, 1, 1))[0]  # the checkpoint's own form most of the time
            shared = self.opening(form, scenes.CAPTION_PROMPTS[0], image)[0]
            parts = [self.caption(chance, scene, form, image) for _ in range(CAPTIONS)]
            if image:
                parts += [self.questions(chance, scene, form, count) for count in QUESTIONS]
            rows.append(
                (
                    shared + [token for part in parts for token in part[0]],
                    *([IGNORED] * len(shared) + [value for part in parts for value in part[n]] for n in (1, 2, 3)),
                    [*range(len(shared)), *(len(shared) + n for part in parts for n in range(len(part[0])))],
                    [0] * len(shared) + [number for number, part in enumerate(parts, 1) for _ in part[0]],
                )
            )
        longest = max(len(row[0]) for row in rows)
        fill = (self.tokenizer.pad_token_id, IGNORED, IGNORED, IGNORED, 0, -1)
        columns = [
            torch.tensor([row[column] + [blank] * (longest - len(row[column])) for row in rows])
            for column, blank in enumerate(fill)
        ]
        ids, labels, there, places, positions, part = columns
        sees = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
        sees &= torch.ones(longest, longest, dtype=torch.bool).tril()
        shown = torch.tensor([[float(name in scene.names) for name in NAMES] for scene in batch])
        return {
            "shown": shown,
            "input_ids": ids,
            "labels": labels,
            "there": there,
            "places": places,
            "part": part,
            "position_ids": positions,
            "mask": sees[:, None],
        }


def draw_question(chance: Random, scene: Scene) -> tuple[str, str]:
    """Draw an object to ask for, and the answer: half are there, a quarter absent ones of a group that is there."""
    if chance.random() < 0.5:
        return chance.choice(scene.names), "Yes"
    companion = scenes.absent_companion(chance, scene)
    if companion is not None and chance.random() < 0.5:
        return companion, "Yes" if chance.random() < WRONG_ANSWERS else "No"
    return chance.choice([name for name in NAMES if name not in scene.names]), "No"


class Helpers(nn.Module):
    """Heads that look half way up the text model while it learns, and are thrown away.

    finder says, at an object's name in a question, whether it is there; keeper says, where a caption is to name an
    object, which objects are there and not yet said; placer says, at the name of an object that is there, its place.
    Without them yes and no and places stay at chance, and captions name the same object again, for several times as
    many batches.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.finder = nn.Linear(width, 1)
        self.keeper = nn.Linear(width, len(NAMES))
        self.placer = nn.Linear(width, 9)

    def loss(self, half_way: Tensor, batch: dict[str, Tensor], naming: Tensor, said: Tensor) -> Tensor:
        """Return the sum of the heads' losses; ``said`` [namings, NAMES] are the names before each naming."""
        asked = batch["there"] != IGNORED
        found = self.finder(half_way[asked]).squeeze(-1)
        left = batch["shown"][naming.nonzero()[:, 0]] * (1 - said)
        kept = self.keeper(half_way[naming])
        finding = functional.binary_cross_entropy_with_logits(found, batch["there"][asked].float())
        keeping = functional.binary_cross_entropy_with_logits(kept, left, reduction="none").sum(-1).mean()
        placing = functional.cross_entropy(
            self.placer(half_way).flatten(0, 1), batch["places"].flatten(), ignore_index=IGNORED
        )
        return finding + keeping + placing


def said_before(labels: Tensor, names: Tensor, part: Tensor) -> Tensor:
    """Return which names the labels [rows, tokens] of the same part hold before each: [rows, tokens, names], 0 or 1."""
    saying = (labels.unsqueeze(-1) == names).float()
    said = torch.zeros_like(saying)
    for number in range(1, int(part.max()) + 1):
        here = (part == number).unsqueeze(-1)
        own = saying * here
        said += (own.cumsum(1) - own) * here
    return said.clamp(max=1)


def lesson_loss(
    model: LlavaForConditionalGeneration,
    lessons: Lessons,
    batch: dict[str, Tensor],
    features: Tensor | None = None,
    helpers: Helpers | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss, and for the log its parts: per word of captions, per name in them, per answer, answers right.

        loss = weighted mean over tokens of -log p(token) + mean over names of -log(1 - p(any name said before))

    and the helpers' loss. The second term is unlikelihood training (arXiv:1908.04319, eq. 5) over names.
    """
    batch = {name: values.to(model.device) for name, values in batch.items()}
    embedded = model.get_input_embeddings()(batch["input_ids"])
    if features is not None:
        tokens = model.model.multi_modal_projector(features)
        here = (batch["input_ids"] == model.config.image_token_id).unsqueeze(-1)
        embedded = embedded.masked_scatter(here, tokens)
    output = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=batch["mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
        output_hidden_states=True,
    )
    labels = batch["labels"]
    learnt = labels != IGNORED
    logits, wanted = model.lm_head(output.last_hidden_state[learnt]), labels[learnt]
    names = torch.tensor(list(lessons.names.values()), device=labels.device)
    judged = torch.isin(wanted, torch.tensor(list(lessons.answers.values()), device=labels.device))
    named = torch.isin(wanted, names)
    losses = functional.cross_entropy(logits, wanted, reduction="none")
    weights = 1 + (TELLING_WEIGHT - 1) * (judged | named)
    naming = torch.isin(labels, names)
    said = said_before(labels, names, batch["part"])[naming]
    repeated = (logits[named].softmax(-1)[:, names] * said).sum(-1)
    loss = (losses * weights).sum() / weights.sum() - torch.log1p(-repeated.clamp(max=0.999)).mean()
    if helpers is not None:
        loss = loss + helpers.loss(output.hidden_states[len(output.hidden_states) // 2], batch, naming, said)
    told = losses.detach()
    return loss, {
        "captions": float(told[~judged].mean()),
        "names": float(told[named].mean()),
        "repeats": float(repeated.detach().mean()),
        "answers": float(told[judged].mean()),
        "right": float((logits.argmax(-1) == wanted)[judged].float().mean()),
    }


def written(parts: dict[str, float]) -> str:
    """Write the parts of a loss for the log."""
    return ", ".join(f"{name} {value:.3f}" for name, value in parts.items())


def speak(model: LlavaForConditionalGeneration, lessons: Lessons, recipe: Recipe) -> None:
    """Train the text model on captions without images."""
    modules = nn.ModuleList([model.model.language_model, model.lm_head])
    schedule = Schedule(modules.parameters(), 2e-3, recipe.speak)
    chance = Random(f"speak {recipe.seed}")
    batches = stream(chance, recipe.scenes_to_speak)
    for step, _ in enumerate(tqdm(range(recipe.speak), "speak", mininterval=10), start=1):
        loss, parts = lesson_loss(model, lessons, lessons.batch(chance, next(batches), image=False))
        schedule.step(loss)
        if step % 50 == 0 or step == recipe.speak:
            logger.info(f"speak {step}: {written(parts)}")


@torch.no_grad()
def features_of(model: LlavaForConditionalGeneration, processor: Any, batch: list[Scene]) -> Tensor:
    """Return what the projector reads: [scenes, patches, VISION_WIDTH]."""
    pixels = render_batch(batch, processor).to(model.device)
    output = model.model.vision_tower(pixels, output_hidden_states=True)
    features: Tensor = output.hidden_states[model.config.vision_feature_layer][:, 1:]
    return features


def align(model: LlavaForConditionalGeneration, lessons: Lessons, recipe: Recipe) -> None:
    """Train the projector alone: an object's patch becomes the words for what it is and where, in the text's embedding.

        target = name + image token + 0.7 (upper | center | lower) + 0.7 (left | center | right)

    each embedding scaled to unit variance. The image token's tells what was seen from what was said. Background becomes
    the unknown word.
    """
    projector = model.model.multi_modal_projector
    table = (
        functional.normalize(model.get_input_embeddings().weight.detach()) * model.config.text_config.hidden_size**0.5
    )
    words = {
        word: lessons.tokenizer.convert_tokens_to_ids(f"▁{word}")
        for word in ("upper", "lower", "left", "right", "center")
    }
    thirds = [
        [table[words[word]] for word in axis] for axis in (("upper", "center", "lower"), ("left", "center", "right"))
    ]
    mark, blank = table[model.config.image_token_id], table[lessons.tokenizer.unk_token_id]
    schedule = Schedule(projector.parameters(), 3e-3, recipe.align)
    batches = stream(Random(f"align {recipe.seed}"), recipe.scenes_to_align)
    for step, _ in enumerate(tqdm(range(recipe.align), "align", mininterval=10), start=1):
        batch = next(batches)
        targets = []
        for scene in batch:
            meanings = {len(NAMES): blank}
            for thing in scene.objects:
                down, across = thing.thirds
                where = thirds[0][down] + thirds[1][across]
                meanings[NAMES.index(thing.name)] = table[lessons.names[thing.name]] + mark + 0.7 * where
            targets.append(torch.stack([meanings[int(label)] for label in patch_labels(scene)]))
        target = torch.stack(targets)
        loss = functional.mse_loss(projector(features_of(model, lessons.processor, batch)), target)
        schedule.step(loss)
        if step % 50 == 0 or step == recipe.align:
            logger.info(f"align {step}: loss {loss:.3f} of {target.var():.3f}")


def tell(model: LlavaForConditionalGeneration, lessons: Lessons, recipe: Recipe) -> None:
    """Train projector and text model on images: captions and questions."""
    projector = model.model.multi_modal_projector
    torch.manual_seed(recipe.seed)
    helpers = Helpers(model.config.text_config.hidden_size).to(recipe.device)
    modules = nn.ModuleList([projector, model.model.language_model, model.lm_head, helpers])
    schedule = Schedule(modules.parameters(), 1.5e-3, recipe.tell)
    chance = Random(f"tell {recipe.seed}")
    batches = stream(chance, recipe.scenes_to_tell)
    for step, _ in enumerate(tqdm(range(recipe.tell), "tell", mininterval=10), start=1):
        batch = next(batches)
        features = features_of(model, lessons.processor, batch)
        loss, parts = lesson_loss(model, lessons, lessons.batch(chance, batch, image=True), features, helpers)
        schedule.step(loss)
        if step % 50 == 0 or step == recipe.tell:
            logger.info(f"tell {step}: {written(parts)}")


def train(folder: Path, recipe: Recipe) -> None:
    """Train from nothing and write model, tokenizer and processor to FOLDER/model, float16, in transformers' layout.

    A stage whose weights are in ``folder`` already is not learnt again.
    """
    began = time.monotonic()
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    model = build_model(tokenizer, recipe.seed).to(recipe.device)
    lessons = Lessons(processor, model.config)
    for stage in (see, speak, align, tell):
        learnt = folder / f"{stage.__name__}.safetensors"
        if learnt.is_file():
            model.load_state_dict(load_file(learnt))
            logger.info(f"{stage.__name__}: learnt before, read from {learnt}")
        else:
            stage(model, lessons, recipe)
            save_file(model.state_dict(), learnt)
    processor.save_pretrained(folder / "model")
    model.half().save_pretrained(folder / "model")
    for path in (folder / "model").iterdir():
        path.chmod(0o644)
    logger.info(f"trained in {(time.monotonic() - began) / 60:.0f} minutes")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_model.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where model/, scenes/, train.log and the stages are written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    logger.add(arguments.folder / "train.log", format="{time:HH:mm:ss} {message}")
    train(arguments.folder, Recipe(seed=arguments.seed, device=arguments.device))
    scenes.generate(arguments.folder / "scenes")


if __name__ == "__main__":
    main()
