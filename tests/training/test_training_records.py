"""Files of records: what is read, what is refused and in which words, and the stream they become."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from groundlink.backends.locateanything.parse import parse_answer
from groundlink.errors import BadData, BadImage, BadOutput
from groundlink.training.records import (
    Stream,
    answer_text,
    convert_text,
    detection_record,
    from_coco,
    read_recipe,
    read_records,
    tokens_of_text,
    write_records,
)
from groundlink.training.scenes import Scenes
from groundlink.training.sequences import SampleEncoder
from tests.locateanything.samples import checkpoint

ASK = "<image-1>Locate all the instances that matches the following description: {}."
ASK_CAT = ASK.format("cat")
CAT = "<ref>cat</ref><box><12><40><300><900></box>"


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def line(answer=CAT, question=ASK_CAT, **changes):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    record = {"image": "a.png", "conversations": turns} | changes
    return {key: value for key, value in record.items() if value is not None}


def read(folder, *lines, **options):
    path = folder / "train.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return read_records(path, **options)


def turns(*texts, speakers=("human", "gpt")):
    said = [{"from": speakers[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"image": "a.png", "conversations": said}


def test_the_example_of_the_spec_is_read(folder):
    two = "<ref>person</ref><box><12><40><300><900></box><box><410><33><600><870></box><ref>car</ref><box>none</box>"
    question = "<image-1>\nLocate all the instances that matches the following description: person</c>car."
    records = read(folder, line(two, question), "", line())
    assert len(records) == 2
    sample = records.sample(0)
    assert sample.conversations == ((question, two.replace("none", "None")),)
    assert [opener().size for opener in sample.images] == [(400, 300)]
    assert sample.source == f"{folder / 'train.jsonl'}:1"
    assert records.sample(1).source.endswith("train.jsonl:3")
    encoder = SampleEncoder(checkpoint().tokenizer, checkpoint().config)
    text = checkpoint().tokenizer.decode(encoder.encode(sample).ids)
    assert "<box>None</box><|im_end|>" in text


@pytest.mark.parametrize(
    ("questions", "images", "wanted"),
    [
        (["Where?"], 1, ["<image-1>Where?"]),
        (["<image>\nWhere?"], 1, ["<image-1>\nWhere?"]),
        (["<image> or <image>?", "And <image>?"], 3, ["<image-1> or <image-2>?", "And <image-3>?"]),
        (["<image> or <image-1>?"], 2, ["<image-2> or <image-1>?"]),
        (["Where?", "And <image-2>?"], 3, ["<image-1><image-3>Where?", "And <image-2>?"]),
        (["<image-2>, <image-1>, <image-2>"], 2, ["<image-2>, <image-1>, <image-2>"]),
    ],
)
def test_every_picture_gets_its_tag(folder, questions, images, wanted):
    texts = [text for question in questions for text in (question, "there")]
    record = turns(*texts) | {"image_list": ["a.png", "b.png", "a.png"][:images]}
    del record["image"]
    sample = read(folder, record).sample(0)
    assert sample.conversations[0][::2] == tuple(wanted)
    assert len(sample.images) == images


BOX = "<box><1><2><3><4></box>"
TWO = ASK.format("cat</c>dog")
REFUSED = [
    ('{"image": "a.png"', "is not JSON", "one whole object"),
    ("[" * 100_000, "JSON|nested", ""),
    ("[1, 2]", r"\[1, 2\]", "object"),
    (line(image=None), "neither 'image' nor 'image_list'", "name the picture"),
    (line(image=3), "3", "path"),
    (line(image=None, image_list=[]), r"\[\]", "list of paths"),
    (line(image_list=["a.png"]), "both", "keep one"),
    (line(video="v.mp4"), "'video' is not supported", "image_list"),
    (line(image="none.png"), "none.png", "root"),
    (line(conversations=None), "no 'conversations'", "add"),
    (line(conversations=[]), r"\[\]", "turns"),
    (turns("a", "b", speakers=("user", "gpt")), "turn 1 is from 'user'", "human and gpt"),
    (turns("a", "b", speakers=("gpt", "human")), "turn 1 is from gpt", "begin with human"),
    (turns("a", "b", speakers=("human", "human")), "turn 2 is from human", "by turns"),
    (turns("a", "b", "c"), "last of its 3 turns is a question", "add the answer"),
    (turns("a", " "), "turn 2 is empty", "drop"),
    (line(conversations=[{"from": "human"}, {}]), "turn 1 is .*needs 'from' and 'value'", ""),
    (turns("a<|im_end|>", "b"), r"turn 1 holds '<\|im_end\|>'", "take it out"),
    (turns("a", "b<image-1>"), "turn 2 holds '<image-1>'", ""),
    (turns("<image-2>a", "b"), "<image-2> has no picture: 1 are given", "take out the tag"),
    (turns("<image> <image>", "b"), "<image> has no picture", ""),
    (line("<ref>cat</ref><box><1><2><3><1001></box>"), "<1001> is no coordinate", "<0> to <1000>"),
    (line("<ref>cat</ref><box><1><2><3><04></box>"), "<04> is no coordinate", ""),
    (line("<ref>cat</ref><box><1><2><3></box>"), "<box><1><2><3></box>.*3 numbers", "a box has four"),
    (line("<ref>cat</ref><box></box>"), "<box></box>", "None"),
    (line("<ref>cat</ref><box><1> <2><3><4></box>"), "<box><1> <2><3><4></box>", "<x1><y1><x2><y2>"),
    (line("<ref>cat</ref><box><1><2><3><4>"), "a <box> is not closed", "add </box>"),
    (line(f"<ref>cat</ref><box><1><2>{BOX}"), "a <box> is not closed", "add </box>"),
    (line(f"<ref>cat{BOX}"), "a <ref> is not closed", "add </ref>"),
    (line("<ref>cat</ref></box>"), "</box> closes nothing", "<box>"),
    (line("<ref>cat</ref><1><2><3><4>"), "<1> stands outside of any box", ""),
    (line("<ref>cat</ref><box><9><2><3><4></box>"), "corners are swapped", "x1 ≤ x2"),
    (line("<ref>cat</ref><box><1><9><3><4></box>"), "corners are swapped", "y1 ≤ y2"),
    (line("<ref>cat</ref><box>(1,2,3,4)</box>"), r"\(1,2,3,4\)", "convert_text"),
    (line("<ref>cat</ref>(1, 2, 3, 4)"), r"\(1, 2, 3, 4\)", "convert_text"),
    (line("(1, 2, 3, 4)"), r"\(1, 2, 3, 4\)", "convert_text"),
    (line("<ref>cat</ref><box>1,2,3,4</box>"), "1,2,3,4", "convert_text"),
    (line(f"<ref>a</c>b</ref>{BOX}"), "'a</c>b' holds '</c>'", "plain words"),
    (line(f"<ref><7></ref>{BOX}"), "'<7>' holds '<7>'", "plain words"),
    (line(f"<ref>a<box></ref>{BOX}"), "'a<box>' holds '<box>'", "plain words"),
    (line(f"<ref> </ref>{BOX}"), "label ' ' is empty", "plain words"),
    (line(f"{CAT}<box>None</box>"), "'cat' is said to be absent", "keep one"),
    (line(CAT, TWO), "'dog' is asked for and not answered", "<ref>dog</ref><box>None</box>"),
    (line(f"<ref>dog</ref>{BOX}{CAT}", TWO), r"\['dog', 'cat'\].*\['cat', 'dog'\]", "in order"),
    (line(f"{CAT}<ref>dog</ref>{BOX}<ref>cow</ref>{BOX}", TWO), "'cow'", "in order"),
    (line(f"{CAT}<ref>dog</ref>", TWO), "'dog' has no box", "None"),
    (line(f"<ref>cat</ref><box><5><1><9><9></box>{BOX}"), "<box><5><1><9><9></box> of 'cat'", "resort=True"),
    (line("<ref>cat</ref><box><5><9></box><box><5><1></box>"), "<box><5><9></box>", "by x1, then by y1"),
]


@pytest.mark.parametrize(("bad", "match", "remedy"), REFUSED)
def test_a_bad_line_is_told_with_its_number_and_a_remedy(folder, bad, match, remedy):
    with pytest.raises(BadData, match=rf"train\.jsonl:2: .*({match})") as told:
        read(folder, line(), bad, line())
    assert remedy in str(told.value)
    assert str(told.value).count("\n") == 0


def test_all_bad_lines_are_told_at_once(folder):
    with pytest.raises(BadData) as told:
        read(folder, *["{"] * 3, line(), *[line(image="gone.png")] * 20)
    lines = str(told.value).split("\n")
    assert len(lines) == 11
    assert "train.jsonl:3: is not JSON" in lines[2]
    assert "train.jsonl:5: there is no picture" in lines[3]
    assert lines[-1] == "… and 13 more lines"


def test_files_that_are_no_records(folder):
    with pytest.raises(BadData, match=r"none\.jsonl: there is no such file; give"):
        read_records(folder / "none.jsonl")
    with pytest.raises(BadData, match="cannot be read"):
        read_records(folder)
    with pytest.raises(BadData, match=r"train\.jsonl: holds no records; write"):
        read(folder, "", " ")
    (folder / "train.jsonl").write_bytes(json.dumps(line()).encode() + b"\n\xff\n")
    with pytest.raises(BadData, match=r"train\.jsonl:2: is not UTF-8"):
        read_records(folder / "train.jsonl")
    (folder / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(line()).encode())
    assert len(read_records(folder / "train.jsonl")) == 1


SOUND = [
    (f"{CAT}<ref>dog</ref><box>None</box>", TWO),
    (f"{CAT}<ref>dog</ref>{BOX}", "Find cat</c>dog in this picture"),
    ("two <ref>cats</ref> here", "What is there?"),
    ("It says (1, 2, 3, 4) there.", "What does it say?"),
    (f"{BOX}<box><1><2><9><9></box><box><2><0><9><9></box>", "Detect all the text in box format."),
    ("<ref>a</ref><box><500><0><500><1000></box>", ASK.format("a")),
    (f"<ref>A</ref><box><5><5><6><6></box><ref>A</ref>{BOX}", "Detect all the text in box format."),
    ("<box><5><6></box>", "Point to: the nose."),
]


@pytest.mark.parametrize(("answer", "question"), SOUND)
def test_what_is_sound_stays_as_it_is(folder, answer, question):
    assert read(folder, line(answer, question)).sample(0).conversations[0][1] == answer


def test_boxes_are_put_in_order_where_asked(folder):
    answer = f"The <ref>cat</ref>s<box><5><1><9><9></box> {BOX}<ref>dog</ref><box>none</box> <box><5><4><5><4></box>."
    with pytest.raises(BadData, match="absent"):
        read(folder, line(answer), resort=True)
    answer = answer.replace("<box>none</box> ", "<box><7><1></box>")
    wanted = f"The <ref>cat</ref>s{BOX} <box><5><1><9><9></box><ref>dog</ref><box><5><4><5><4></box><box><7><1></box>."
    assert read(folder, line(answer), resort=True).sample(0).conversations[0][1] == wanted


def test_a_picture_that_goes_is_told_with_its_line(folder):
    records = read(folder, line(), line(image="b.png"))
    (folder / "b.png").unlink()
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadImage, match=r"train\.jsonl:2: .*b\.png: no such file"):
        records.sample(1).images[0]()
    with pytest.raises(BadImage, match=r"train\.jsonl:1: .*a\.png: is not an image"):
        records.sample(0).images[0]()
    assert len(read(folder, line(image="gone.png"), check_images=False)) == 1


def test_pictures_are_turned_upright(folder):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (40, 20)).save(folder / "turned.jpg", exif=exif)
    assert read(folder, line(image="turned.jpg")).sample(0).images[0]().size == (20, 40)


def test_sizes_vary_repeatably(folder):
    Image.new("RGB", (400, 20)).save(folder / "wide.png")
    records = read(folder, *[line(image="wide.png")] * 20, data_augment=True, seed=1)
    sizes = [records.sample(i).images[0]().size for i in range(20)]
    again = read(folder, *[line(image="wide.png")] * 20, data_augment=True, seed=1)
    assert [again.sample(i).images[0]().size for i in range(20)] == sizes
    assert 4 <= sizes.count((400, 20)) <= 16
    others = [size for size in sizes if size != (400, 20)]
    assert len(set(others)) > 4
    assert all(640 <= width <= 2560 and abs(height - width / 20) <= 0.5 for width, height in others)


def test_an_example_is_shown_instead_of_its_name(folder):
    both = f"{CAT}<ref>dog</ref><box>None</box>"
    lines = [
        line(),
        line("<ref>cat</ref><box>None</box>"),
        line(both, TWO),
        line(CAT, "Where is the cat?"),
        line("<box><5><6></box>", "Point to: cat."),
        line(CAT, "Locate all the instances that match the following description: cat."),
    ]
    records = read(folder, *lines, visual_prompt=True, data_augment=True)
    plain = read(folder, *lines)
    for i in (1, 2, 3, 4):
        assert records.sample(i).conversations == plain.sample(i).conversations
        assert len(records.sample(i).images) == 1
    for i in (0, 5):
        sample = records.sample(i)
        question, answer = sample.conversations[0]
        assert question.endswith("the following description: <image-2>.")
        assert answer == CAT
        crop = sample.images[1]()
        assert crop.size == (120 - 5, 270 - 12)  # <12><40><300><900> of 400×300
        assert crop.tobytes() == plain.sample(i).images[0]().crop((5, 12, 120, 270)).tobytes()
        assert len(SampleEncoder(checkpoint().tokenizer, checkpoint().config).encode(sample).grids) == 2


def test_a_part_of_a_file_is_the_same_part_each_time(folder):
    lines = [line(f"<box><{i}><1></box>", "Point to: it.") for i in range(50)]
    part = read(folder, *lines, repeat_time=0.3, seed=3).records
    assert len(part) == 15
    assert part == read(folder, *lines, repeat_time=0.3, seed=3).records
    assert part != read(folder, *lines, repeat_time=0.3, seed=4).records
    assert len(read(folder, *lines, repeat_time=0.001).records) == 1
    assert len(read(folder, *lines, repeat_time=3).records) == 50


# --- Writing


def test_pixels_become_tokens():
    answer = answer_text({"cat": [(320, 10, 640, 480.4), (0, 0, 1, 1)], "dog": [], "nose": [(639.9, 0.2)]}, (640, 480))
    assert answer == (
        "<ref>cat</ref><box><0><0><2><2></box><box><500><21><1000><1000></box>"
        "<ref>dog</ref><box>None</box><ref>nose</ref><box><1000><0></box>"
    )
    assert answer_text([("a", [(1, 1)]), ("a", [(0, 0)])], (10, 10)) == (
        "<ref>a</ref><box><100><100></box><ref>a</ref><box><0><0></box>"
    )


side = st.integers(20, 3000)
share = st.floats(0, 1)
label = st.text("abc é中/c>()|", min_size=1, max_size=9).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(side, side, st.dictionaries(label, st.lists(st.tuples(share, share, share, share), max_size=4), max_size=4))
def test_an_answer_says_what_it_was_made_of(width, height, targets):
    pixels = {
        name: [(min(a, c) * width, min(b, d) * height, max(a, c) * width, max(b, d) * height) for a, b, c, d in boxes]
        for name, boxes in targets.items()
    }
    found = parse_answer(answer_text(pixels, (width, height)), width, height)
    wanted = [(name, box) for name, boxes in pixels.items() for box in boxes]
    assert len(found) == len(wanted)
    for name, boxes in pixels.items():
        mine = [f.box for f in found if f.label == name]
        assert [box[:2] for box in mine] == sorted(box[:2] for box in mine)
        for box in boxes:
            assert min(np.abs(np.subtract(box, other) / (width, height, width, height)).max() for other in mine) < 6e-4


@pytest.mark.parametrize(
    ("targets", "match"),
    [
        ({"cat": [(5, 5, 4, 9)]}, r"\[5, 5, 4, 9\] of 'cat' has its corners swapped; give"),
        ({"cat": [(5, 5, 12, 9)]}, r"\[5, 5, 12, 9\] of 'cat' lies outside of its picture of 10×20"),
        ({"cat": [(-3, 5)]}, "outside of its picture"),
        ({"cat": [(1, 2, 3)]}, "neither a box"),
        ({"cat": [(1, float("nan"))]}, "neither a box"),
        ({"a<box>": []}, "'a<box>' holds '<box>'"),
        ({"": []}, "empty"),
    ],
)
def test_targets_that_are_none_are_told(targets, match):
    with pytest.raises(BadData, match=match):
        answer_text(targets, (10, 20))
    with pytest.raises(BadData, match=rf"street/7\.png: .*{match}"):
        detection_record("street/7.png", targets, (10, 20))


def test_records_that_were_written_are_read(folder):
    records = [detection_record("a.png", {"cat": [(9, 9, 40, 40), (1, 1, 5, 5)], "dog": []}, (400, 300))]
    assert write_records(folder / "out.jsonl", records) == 1
    question, answer = read_records(folder / "out.jsonl").sample(0).conversations[0]
    assert question == ASK.format("cat</c>dog")
    assert answer.endswith("<ref>dog</ref><box>None</box>")
    with pytest.raises(BadData, match="17 categories"):
        detection_record("a.png", {str(i): [] for i in range(17)}, (400, 300))
    with pytest.raises(BadOutput, match=r"out\.jsonl: cannot be written"):
        write_records(folder / "no" / "out.jsonl", records)


def test_text_coordinates_become_tokens(folder):
    assert tokens_of_text("<ref>cat</ref>(1,2, 30,1000) and [5, 6, 7, 8]") == (
        "<ref>cat</ref><box><1><2><30><1000></box> and <box><5><6><7><8></box>"
    )
    assert tokens_of_text("<box>(1.4,2,30,40)</box><box> (5,6) </box> (5,6)") == (
        "<box><1><2><30><40></box><box><5><6></box> (5,6)"
    )
    assert tokens_of_text("(32,0,64,48)", (64, 48)) == "<box><500><0><1000><1000></box>"
    assert tokens_of_text(CAT) == CAT
    with pytest.raises(BadData, match="outside"):
        tokens_of_text("(1,2,3,2000)")
    with pytest.raises(BadData, match="swapped"):
        tokens_of_text("(9,2,3,4)")

    write_records(folder / "old.jsonl", [line("<ref>cat</ref><box>(12,40,300,900)</box>")] * 2)
    assert convert_text(folder / "old.jsonl", folder / "new.jsonl") == 2
    assert read_records(folder / "new.jsonl").sample(1).conversations[0][1] == CAT
    write_records(folder / "old.jsonl", [line(), line("(5,1,2,9)")])
    with pytest.raises(BadData, match=r"old\.jsonl:2: cannot be converted .*swapped"):
        convert_text(folder / "old.jsonl", folder / "new.jsonl")


def coco(images=200, categories=30):
    numbers = np.random.default_rng(0)
    annotations = []
    for image in range(images):
        for _ in range(numbers.integers(0, 12)):
            x, y, w, h = (numbers.random(4) * (200, 150, 200, 150)).tolist()
            category = int(numbers.integers(categories))
            annotations.append({"id": 1, "image_id": image, "category_id": category, "bbox": [x, y, w, h]})
    return {
        "images": [
            {"id": i, "file_name": "b.png" if i == 1 else "a.png", "width": 400, "height": 300} for i in range(images)
        ],
        "categories": [{"id": i, "name": f"kind {i}"} for i in range(categories)],
        "annotations": annotations,
    }


def test_coco_becomes_records(folder):
    data = coco()
    data["annotations"] += [{"image_id": 0, "category_id": c, "bbox": [0, 0, 9, 9]} for c in range(20)]
    data["annotations"].append({"image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    data["annotations"].append({"image_id": 1, "category_id": 8, "bbox": [0, 0, 0, 9]})
    (folder / "coco.json").write_text(json.dumps(data))
    count = from_coco(folder / "coco.json", folder / "out.jsonl", negatives=0.25, seed=1)
    records = read_records(folder / "out.jsonl")
    assert len(records) == count
    assert records.records[0].conversation[1].count("<ref>") == 16  # of some 27 asked; the rest are the next question
    answers = [records.sample(i).conversations[0][1] for i in range(count)]
    present = sum(a.count("<ref>") - a.count("None") for a in answers)
    absent = sum(a.count("None") for a in answers)
    assert 0.2 < absent / (present + absent) < 0.3
    crowd = {(1, 7), (1, 8)}
    wanted = sum((a["image_id"], a["category_id"]) not in crowd for a in data["annotations"])
    assert sum(a.count("<box>") for a in answers) - absent == wanted
    (of_crowd,) = (record for record in records.records if record.images[0].name == "b.png")
    assert not any(f"<ref>kind {c}</ref>" in of_crowd.conversation[1] for _, c in crowd)

    again = folder / "again.jsonl"
    from_coco(folder / "coco.json", again, negatives=0.25, seed=1)
    assert again.read_bytes() == (folder / "out.jsonl").read_bytes()
    from_coco(folder / "coco.json", again, negatives=0)
    assert "None" not in again.read_text()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": [], "annotations": []}, "holds no images"),
        ({"annotations": [{"image_id": 99, "category_id": 1, "bbox": [1, 1, 1, 1]}]}, "KeyError: 99.*it needs"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 1]}]}, "cannot be read"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 500, 1]}]}, r"b\.png: .*outside"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "annotations": []}, "same name"),
        ({"categories": 3}, "it needs images"),
    ],
)
def test_what_is_not_coco_is_told(folder, change, match):
    (folder / "coco.json").write_text(json.dumps(coco(3, 5) | change))
    with pytest.raises(BadData, match=rf"coco\.json: .*{match}"):
        from_coco(folder / "coco.json", folder / "out.jsonl")
    assert not (folder / "out.jsonl").exists()
    with pytest.raises(BadData, match="there is no such file"):
        from_coco(folder / "none.json", folder / "out.jsonl")
    with pytest.raises(BadData, match="share of negatives is 30"):
        from_coco(folder / "coco.json", folder / "out.jsonl", negatives=30)


# --- Recipes and streams


class Endless:
    def sample(self, index):
        return index


class Finite(Endless):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


def recipe(folder, **entries):
    read(folder, *[line()] * 10)
    path = folder / "recipe.json"
    path.write_text(json.dumps(entries))
    return path


def test_a_recipe_names_data_sets(folder):
    pictures = folder / "pictures"
    pictures.mkdir()
    (folder / "a.png").rename(pictures / "a.png")
    train = {"annotation": "train.jsonl", "root": "pictures"}
    (folder / "train.jsonl").write_text("".join(json.dumps(line()) + "\n" for _ in range(10)))
    path = folder / "recipe.json"
    path.write_text(
        json.dumps(
            {
                "all": train,
                "some": {**train, "repeat_time": 0.5},
                "thrice": {**train, "repeat_time": 3, "data_augment": True, "visual_prompt": True},
                "made": {"scenes": {"kind": "gui"}, "weight": 7},
            }
        )
    )
    asked = []
    made = read_recipe(path, scenes=lambda wanted: asked.append(wanted) or Endless())
    assert asked == [{"kind": "gui"}]
    assert {name: entry.weight for name, entry in made.items()} == {"all": 10, "some": 5, "thrice": 30, "made": 7}
    assert len(made["some"].source) == 5
    assert len(made["thrice"].source.sample(0).images) == 2
    assert next(Stream({"all": made["all"]})).images[0]().size == (400, 300)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({}, "holds no data sets"),
        ({"x": "train.jsonl"}, "'x' is 'train.jsonl'"),
        ({"x": {"root": "."}}, "'x' has no 'annotation'"),
        ({"x": {"annotation": "train.jsonl", "lenght": 3}}, "'x' has the key 'lenght'; there are annotation, root"),
        ({"x": {"annotation": "train.jsonl", "repeat_time": 0}}, "'repeat_time' is 0; give a number above 0"),
        ({"x": {"annotation": "train.jsonl", "repeat_time": True}}, "'repeat_time' is True"),
        ({"x": {"annotation": "train.jsonl", "data_augment": "yes"}}, "'data_augment' is 'yes', not of type bool"),
        ({"x": {"annotation": "gone.jsonl"}}, r"gone\.jsonl: there is no such file"),
        ({"x": {"scenes": {}}}, "asks for generated scenes"),
    ],
)
def test_a_bad_recipe_is_told(folder, entries, match):
    with pytest.raises(BadData, match=match):
        read_recipe(recipe(folder, **entries))


def test_files_that_are_no_recipe(folder):
    with pytest.raises(BadData, match=r"none\.json: there is no such file"):
        read_recipe(folder / "none.json")
    (folder / "recipe.json").write_text("{")
    with pytest.raises(BadData, match=r"recipe\.json: cannot be read as JSON"):
        read_recipe(folder / "recipe.json")
    path = recipe(folder, x={"annotation": "train.jsonl"}, y={"scenes": {}})
    with pytest.raises(BadData, match="'y' has no 'weight'"):
        read_recipe(path, scenes=lambda _: Endless())


def test_a_stream_gives_all_of_a_source_before_any_comes_again():
    stream = Stream({"a": (Finite(7), 1)}, seed=2)
    passes = [[next(stream) for _ in range(7)] for _ in range(6)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) > 4
    assert passes[0] == list(islice(Stream({"a": (Finite(7), 1)}, seed=2), 7))
    assert passes[0] != list(islice(Stream({"a": (Finite(7), 1)}, seed=3), 7))


def test_sources_are_drawn_by_weight_and_endless_ones_go_on():
    stream = Stream({"a": (Finite(5), 1), "b": (Endless(), 3)})
    keys = [stream.next_key() for _ in range(2000)]
    counts = Counter(name for name, _ in keys)
    assert 1400 < counts["b"] < 1600
    assert [index for name, index in keys if name == "b"] == list(range(counts["b"]))


@pytest.mark.parametrize("cut", [0, 3, 40])
def test_a_stream_is_resumed_where_it_was(cut):
    def make():
        return Stream({"a": (Finite(9), 2), "b": (Endless(), 1)}, seed=4)

    whole = make()
    keys = [whole.next_key() for _ in range(80)]
    begun = make()
    for _ in range(cut):
        begun.next_key()
    resumed = make()
    resumed.next_key()
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert [resumed.next_key() for _ in range(80 - cut)] == keys[cut:]
    assert [begun.next_key() for _ in range(80 - cut)] == keys[cut:]  # its state is not shared


def test_generated_scenes_are_a_source():
    keys = [Stream({"scenes": (Scenes(questions=2), 1)}).next_key() for _ in range(2)]
    assert keys == [("scenes", 0)] * 2
    sample = next(Stream({"scenes": (Scenes(questions=2), 1)}))
    assert len(SampleEncoder(checkpoint().tokenizer, checkpoint().config).encode(sample).grids) == 1


def test_a_stream_of_other_data_is_not_resumed():
    state = Stream({"a": (Finite(9), 2), "b": (Endless(), 1)}).state_dict()
    with pytest.raises(BadData, match=r"begun with the data sets a \(9\), b \(endless\) .* go on with a \(8\)"):
        Stream({"a": (Finite(8), 2)}).load_state_dict(state)
    with pytest.raises(BadData, match="the seed 0, not 1"):
        Stream({"a": (Finite(9), 2), "b": (Endless(), 1)}, seed=1).load_state_dict(state)


@pytest.mark.parametrize(
    ("sources", "match"),
    [
        ({}, "nothing to train on"),
        ({"a": (Finite(0), 1)}, "data set 'a' is empty"),
        ({"a": (Finite(3), 0)}, "weight of the data set 'a' is 0"),
        ({"a": (Finite(3), float("inf"))}, "is inf"),
    ],
)
def test_a_stream_of_nothing_is_refused(sources, match):
    with pytest.raises(BadData, match=match):
        Stream(sources)
