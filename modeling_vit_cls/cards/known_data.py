"""Published facts about the datasets that have a name here: what they are, who made them, and their licence."""

from ..results import MeasuredData

# Markdown. Sources: scikit-learn's description, the UCI Machine Learning Repository, the repository of Fashion-MNIST.
_FACTS = {
    "digits": (
        "scikit-learn's copy of the test set of [Optical Recognition of Handwritten Digits]"
        "(https://doi.org/10.24432/C50P49) (E. Alpaydin, C. Kaynak, 1998): 1,797 digits of 13 writers, 8 x 8 pixels. "
        "A random fifth is the test split, which does not keep the writers apart. Its licence is CC BY 4.0."
    ),
    "fashion_mnist": (
        "[Fashion-MNIST](https://github.com/zalandoresearch/fashion-mnist) (H. Xiao, K. Rasul, R. Vollgraf, 2017): "
        "70,000 pictures of Zalando's articles, 28 x 28 pixels, 10,000 of them the test split. Its licence is MIT."
    ),
}


def known_data(data: MeasuredData) -> str:
    """Sentences of Markdown on a dataset and its licence, which is not stated if it is not known."""
    if data.source == "built-in" and data.name in _FACTS:
        return f"The dataset is {_FACTS[data.name]}"
    if data.hub_id:
        return "Its licence is not stated here: see its page on the Hub."
    return "Its licence is not stated."
