"""Breaks when a format drops, mixes up or fails to escape what the table says.

The expected texts are typed by hand from `golden.LINES`.
"""

import csv
import io

from ltdd_jax.table import comma_separated, latex, layout, markdown
from tests.table import golden

_CAPTION = (
    "Top-1 accuracy in % on the test set, mean ± standard deviation over 2 networks trained from "
    "scratch; the last iterate, nothing was chosen on the test set; groups by training images per "
    "class. Student: ConvNet, width 64. "
)
_HERE = "CIFAR-10-LT, imbalance factor 100, 10 images per class. "
_FIRST = f"{_CAPTION}Augmentation: DSA. Labels: H, the class alone; S1, one soft vector per image."
_SECOND = (
    f"{_CAPTION}Augmentation: crop, cutmix. The teacher itself reaches 62.9 %. Labels: ST, the "
    "teacher labels every augmented batch."
)
_WIDE = "kB of images / labels / teacher"

MARKDOWN = f"""# A table

## {_HERE}Block (i), labels stored with the images

{_FIRST}

| trained on | labels | ours | published | over random | many (> 100) | medium | images stored / seen | {_WIDE} | updates |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| random real images | H | 31.4 ± 0.2 | – | – | 40.0 | 10.0 | 100 / 100 | 307.2 / 0 / 0 | 1,001 |
| MTT & co_1 | S1 | 38.5 ± 1.0 | 37.7 ± 0.6 [1, a, b] | +7.1 | 50.0 | 20.0 | 100 / 100 | 1,228.8 / 4.0 / 0 | 1,001 |

## {_HERE}Block (ii), labels of a teacher for every view

{_SECOND}

| trained on | labels | ours | many (> 100) | medium | images stored / seen | {_WIDE} | updates |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| random real images | ST | 55.3 ± 0.4 | 60.0 | 50.0 | 100 / 100 | 307.2 / 0 / 1,280.0 | 2,000 |

Differences from the published set-up:

- [a] width 64 in place of 128
- [b] 100 % \\| JPEG

Published numbers:

- [1] A et al., 2024, arXiv 2408.14506
"""  # noqa: E501, RUF001


def _typeset(text):
    return text.replace("%", r"\%").replace("±", r"$\pm$")


LATEX = rf"""% A table
% Needs \usepackage{{booktabs}}.

\begin{{table}}
\centering\small
\caption{{{_HERE}Block (i), labels stored with the images. {_typeset(_FIRST)}}}
\label{{tab:cifar10-if100-ipc10-seed0-i}}
\begin{{tabular}}{{lrrrrrrrrr}}
\toprule
trained on & labels & ours & published & over random & many ($>$ 100) & medium & images stored / seen & {_WIDE} & updates \\
\midrule
random real images & H & 31.4 $\pm$ 0.2 & -- & -- & 40.0 & 10.0 & 100 / 100 & 307.2 / 0 / 0 & 1,001 \\
\midrule
MTT \& co\_1 & S1 & 38.5 $\pm$ 1.0 & 37.7 $\pm$ 0.6\textsuperscript{{1,a,b}} & +7.1 & 50.0 & 20.0 & 100 / 100 & 1,228.8 / 4.0 / 0 & 1,001 \\
\bottomrule
\end{{tabular}}
\par\smallskip\footnotesize \textsuperscript{{a}}~width 64 in place of 128. \textsuperscript{{b}}~100 \% | JPEG. \textsuperscript{{1}}~A et al., 2024, arXiv 2408.14506.
\end{{table}}

\begin{{table}}
\centering\small
\caption{{{_HERE}Block (ii), labels of a teacher for every view. {_typeset(_SECOND)}}}
\label{{tab:cifar10-if100-ipc10-seed0-ii}}
\begin{{tabular}}{{lrrrrrrr}}
\toprule
trained on & labels & ours & many ($>$ 100) & medium & images stored / seen & {_WIDE} & updates \\
\midrule
random real images & ST & 55.3 $\pm$ 0.4 & 60.0 & 50.0 & 100 / 100 & 307.2 / 0 / 1,280.0 & 2,000 \\
\bottomrule
\end{{tabular}}
\end{{table}}
"""  # noqa: E501


def test_markdown():
    assert markdown.render_markdown(layout.lay_out("A table", golden.LINES)) == MARKDOWN


def test_latex():
    assert latex.render_latex(layout.lay_out("A table", golden.LINES)) == LATEX


def test_latex_escapes_what_has_a_meaning_in_it():
    assert latex.escape("a_b\\c~d^e{f}#$&% ±<>") == (
        r"a\_b\textbackslash{}c\textasciitilde{}d\textasciicircum{}e\{f\}\#\$\&\% $\pm$$<$$>$"
    )


def test_csv_has_every_number_in_full_and_nothing_where_nothing_is_known():
    header, *records = csv.reader(io.StringIO(comma_separated.render_csv(golden.LINES)))
    assert [len(record) for record in records] == [len(header)] * 3
    random, ours, second = (dict(zip(header, record, strict=True)) for record in records)
    assert ours == {
        "data": "cifar10", "long_tailed": "true", "imbalance_factor": "100",
        "images_per_class": "10", "seed": "0", "block": "i", "cell": "mtt", "row": "distilled",
        "title": "MTT & co_1", "mean": "38.5", "std": "1.0", "balanced": "38.5", "many": "50.0",
        "medium": "20.0", "few": "", "over_random": "7.06", "networks": "2",
        "published_mean": "37.7", "published_std": "0.6",
        "published_source": "A et al., 2024, arXiv 2408.14506",
        "differences": "width 64 in place of 128; 100 % | JPEG", "labels": "S1",
        "images_stored": "100", "images_seen": "100", "updates": "1001", "rate": "0.01",
        "bytes_of_images": "1228800", "bytes_of_labels": "4000", "bytes_of_teacher": "0",
        "augmentation": "DSA", "student": "ConvNet, width 64", "selection": "",
        "hlr": "", "ior": "", "lrs": "", "teacher": "",
    }  # fmt: skip
    assert (random["mean"], random["std"], random["published_mean"]) == ("31.44", "0.25", "")
    assert (second["block"], second["bytes_of_teacher"]) == ("ii", "1280040")
    assert second["teacher"] == "62.9"
