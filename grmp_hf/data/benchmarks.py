"""The published data sets of the field: range and direction of their scores, what is known of them, where they live.

A `BenchmarkSpec` is a row of facts; what the label files look like is in `readers.py`. No range is ever taken from the
rows at hand: a part of a data set keeps the scale of the whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from grmp_hf.data.scales import RatingScale
from grmp_hf.errors import GRMPError

__all__ = ["BENCHMARKS", "BenchmarkSpec", "OptionValue", "find_benchmark"]

OptionValue: TypeAlias = str | bool
"""What an option of a data set can be."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """Facts about one published data set.

    Attributes:
        id: short name, used everywhere.
        title: as its authors call it.
        home: address of its page.
        terms: under which its authors give it, as far as they are stated.
        citation: of the paper, in one line.
        layout: what must be in the folder, in one line.
        scale: of the published scores, with the default options.
        rows: rated pictures, with the default options.
        references: contents that the pictures share, None where each has its own.
        content: column of the row that holds the content.
        has_official_split: whether the label files themselves say what teaches and what tests.
        options: what can be chosen, the default first.
        other_rows: rows of the whole set under other options, or with parts that not every copy has.
    """

    id: str
    title: str
    home: str
    terms: str
    citation: str
    layout: str
    scale: RatingScale
    rows: int
    references: int | None = None
    content: Literal["reference", "scene"] | None = None
    has_official_split: bool = False
    options: Mapping[str, tuple[OptionValue, ...]] = field(default_factory=dict)
    other_rows: tuple[int, ...] = ()

    def choose(self, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Return every option of the data set with its value, defaults filled in.

        Raises:
            GRMPError: an option that the data set does not have, or a value that the option does not take.
        """
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise GRMPError(f'{self.id}: expected options out of ({known}), got "{name}"; leave it out')
            if value not in self.options[name]:
                values = ", ".join(map(repr, self.options[name]))
                raise GRMPError(f"{self.id}: expected {name} to be one of {values}, got {value!r}")
        return {name: options.get(name, values[0]) for name, values in self.options.items()}

    def is_whole(self, rows: int) -> bool:
        """Say whether a number of rows is that of the whole data set."""
        return rows in (self.rows, *self.other_rows)


_LIVE_NOTICE = (
    "use, copying, change and distribution without fee for any purpose, if the notice is kept in all copies, the "
    "source is named and paper and page are cited; no warranty"
)
_NOT_STATED = "none stated where it could be read; ask the authors before any use but research"

_SPECS = (
    BenchmarkSpec(
        id="livec",
        title="LIVE In the Wild Image Quality Challenge",
        home="https://live.ece.utexas.edu/research/ChallengeDB/",
        terms=_LIVE_NOTICE,
        citation="Ghadiyaram and Bovik, Massive online crowdsourced study of subjective and objective picture quality, "
        "IEEE Transactions on Image Processing 25(1), 2016",
        layout="Data/{AllImages,AllMOS,AllStdDev}_release.mat, Images/, Images/trainingImages/",
        scale=RatingScale(0, 100),
        rows=1162,
        options={"practice": (False, True)},
        other_rows=(1169,),
    ),
    BenchmarkSpec(
        id="koniq10k",
        title="KonIQ-10k",
        home="https://database.mmsp-kn.de/koniq-10k-database.html",
        terms="see the home page; the pictures carry Creative Commons licences of their own (YFCC100M)",
        citation="Hosu, Lin, Sziranyi and Saupe, KonIQ-10k: an ecologically valid database for deep learning of blind "
        "image quality assessment, IEEE Transactions on Image Processing 29, 2020",
        layout="1024x768/ or 512x384/, and koniq10k_distributions_sets.csv or koniq10k_scores_and_distributions.csv",
        scale=RatingScale(0, 100),
        rows=10073,
        has_official_split=True,
        options={"scores": ("0-100", "1-5"), "size": ("1024x768", "512x384")},
    ),
    BenchmarkSpec(
        id="spaq",
        title="SPAQ, Smartphone Photography Attribute and Quality",
        home="https://github.com/h4nwei/SPAQ",
        terms=_NOT_STATED,
        citation="Fang, Zhu, Zeng, Ma and Wang, Perceptual quality assessment of smartphone photography, CVPR 2020",
        layout="TestImage/, and Annotations/MOS and Image attribute scores.xlsx (or a CSV with the same header)",
        scale=RatingScale(0, 100),
        rows=11125,
    ),
    BenchmarkSpec(
        id="live",
        title="LIVE Image Quality Assessment Database, release 2",
        home="https://live.ece.utexas.edu/research/Quality/",
        terms=_LIVE_NOTICE,
        citation="Sheikh, Sabir and Bovik, A statistical evaluation of recent full reference image quality assessment "
        "algorithms, IEEE Transactions on Image Processing 15(11), 2006",
        layout="jp2k/, jpeg/, wn/, gblur/, fastfading/, dmos_realigned.mat or dmos.mat, refnames_all.mat",
        # Realigned differences have no nominal ends: those of the 779 published scores.
        scale=RatingScale(-2.6400150164096132, 111.77469352631448, higher_is_better=False),
        rows=779,
        references=29,
        content="reference",
        options={"scores": ("realigned", "original")},
    ),
    BenchmarkSpec(
        id="csiq",
        title="CSIQ, Categorical Image Quality",
        home="https://vision.eng.shizuoka.ac.jp",
        terms=_NOT_STATED,
        citation="Larson and Chandler, Most apparent distortion: full-reference image quality assessment and the role "
        "of strategy, Journal of Electronic Imaging 19(1), 2010",
        layout="dst_imgs/<type>/ or dst_imgs_all/, and csiq.DMOS.xlsx or csiq_label.txt",
        scale=RatingScale(0, 1, higher_is_better=False),
        rows=866,
        references=30,
        content="reference",
    ),
    BenchmarkSpec(
        id="tid2013",
        title="TID2013, Tampere Image Database 2013",
        home="https://www.ponomarenko.info/tid2013.htm",
        terms="free for research, as is commonly said; see the home page",
        citation="Ponomarenko et al., Image database TID2013: peculiarities, results and perspectives, Signal "
        "Processing: Image Communication 30, 2015",
        layout="distorted_images/, mos_with_names.txt, mos_std.txt",
        scale=RatingScale(0, 9),
        rows=3000,
        references=25,
        content="reference",
        options={"artificial": (True, False)},
        other_rows=(2880,),
    ),
    BenchmarkSpec(
        id="kadid10k",
        title="KADID-10k, Konstanz Artificially Distorted Image Database",
        home="https://database.mmsp-kn.de/kadid-10k-database.html",
        terms="see the home page; the pictures come from Pixabay",
        citation="Lin, Hosu and Saupe, KADID-10k: a large-scale artificially distorted IQA database, QoMEX 2019",
        layout="images/, dmos.csv",
        scale=RatingScale(1, 5),
        rows=10125,
        references=81,
        content="reference",
    ),
    BenchmarkSpec(
        id="bid",
        title="BID, Blurred Image Database",
        home="https://www.lps.ufrj.br",
        terms=_NOT_STATED,
        citation="Ciancio et al., No-reference blur assessment of digital pictures based on multifeature classifiers, "
        "IEEE Transactions on Image Processing 20(1), 2011",
        layout="ImageDatabase/, DatabaseGrades.xls (or .xlsx)",
        scale=RatingScale(0, 5),
        rows=586,
    ),
    BenchmarkSpec(
        id="flive",
        title="FLIVE (LIVE-FB), pictures without their patches",
        home="https://github.com/niu-haoran/FLIVE_Database",
        terms="CC BY-NC 4.0 in the repository, which also shows the mark of CC BY-NC-SA 4.0; the pictures keep the "
        "terms of their sources",
        citation="Ying et al., From patches to pictures (PaQ-2-PiQ): mapping the perceptual space of picture quality, "
        "CVPR 2020",
        layout="voc_emotic_ava/, blur_dataset/, EE371R/, labels_image.csv; labels640.csv and labels=640_padded.csv for "
        "the split",
        scale=RatingScale(0, 100),
        rows=39810,
        has_official_split=True,
    ),
    BenchmarkSpec(
        id="pipal",
        title="PIPAL, Perceptual Image Processing Algorithms, public part",
        home="https://www.jasongt.com/projectpages/pipal.html",
        terms=_NOT_STATED,
        citation="Gu et al., PIPAL: a large-scale image quality assessment dataset for perceptual image restoration, "
        "ECCV 2020",
        layout="Train_Label/, and Train_Dis/ or Distortion_1/ .. Distortion_4/; pipal21_val.txt and Val_Dis/ for a "
        "test part",
        # Elo points have no nominal ends: those of all published scores, the challenge's validation part among them.
        scale=RatingScale(868.2988, 1857.0),
        rows=23200,
        references=200,
        content="reference",
        other_rows=(24200,),
    ),
    BenchmarkSpec(
        id="agiqa3k",
        title="AGIQA-3K, AI-generated pictures",
        home="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        terms="MIT",
        citation="Li et al., AGIQA-3K: an open database for AI-generated image quality assessment, IEEE Transactions "
        "on Circuits and Systems for Video Technology, 2023",
        layout="data.csv, and the pictures beside it or in one folder",
        scale=RatingScale(0, 5),
        rows=2982,
        references=300,
        content="scene",
        options={"scores": ("quality", "align")},
    ),
    BenchmarkSpec(
        id="biq2021",
        title="BIQ2021",
        home="https://github.com/nisarahmedrana/BIQ2021",
        terms="none stated in the repository; the pictures of ss03 come under the licence of Unsplash",
        citation="Ahmed and Asif, BIQ2021: a large-scale blind image quality assessment database, Journal of "
        "Electronic Imaging 31(5), 2022",
        layout="Images/, Train (Images and MOS).csv, Test (Images and MOS).csv",
        scale=RatingScale(0, 1),
        rows=12000,
        has_official_split=True,
    ),
)

BENCHMARKS: Mapping[str, BenchmarkSpec] = {spec.id: spec for spec in _SPECS}
"""Every data set that can be read, by its short name."""


def find_benchmark(name: str) -> BenchmarkSpec:
    """Return the data set of a short name.

    Raises:
        GRMPError: there is none, with the names that there are.

    Examples:
        >>> find_benchmark("kadid10k").scale.higher_is_better
        True
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    close = difflib.get_close_matches(name.casefold(), BENCHMARKS, n=1, cutoff=0.5)
    hint = f' (did you mean "{close[0]}"?)' if close else ""
    raise GRMPError(f'expected a data set out of {", ".join(BENCHMARKS)}, got "{name}"{hint}')
