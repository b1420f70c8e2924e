"""Each row of the catalogue against the library that its checkpoint comes from: `make parity`. No network is needed."""

import make_catalogue
import timm
import torch

from modeling_vit_cls import list_pretrained
from modeling_vit_cls.catalogue import TABLE


def test_timms_own_models_have_as_many_parameters():
    """Built with timm's own arguments and the head of the row."""
    different, compared = {}, 0
    for row in list_pretrained():
        if row.source != make_catalogue.TIMM:
            continue
        with torch.device("meta"):  # shapes alone
            model = timm.create_model(row.variant, num_classes=row.num_labels)
        registers, positions = getattr(model, "reg_token", None), getattr(model, "pos_embed", None)
        # Positions of registers, which a load adds to the registers.
        merged = 0 if registers is None or positions is None or model.no_embed_class else registers.numel()
        theirs = sum(parameter.numel() for parameter in model.parameters()) - merged
        if (theirs, model.patch_embed.img_size) != (row.parameters, row.image_size):
            different[row.hub_id] = (theirs, row.parameters)
        compared += 1
    assert different == {}
    assert compared > 250


def test_the_table_is_the_one_that_make_catalogue_writes(tmp_path, monkeypatch):
    written = tmp_path / "catalogue.csv"
    monkeypatch.setattr(make_catalogue, "TABLE", written)
    make_catalogue.main()
    assert written.read_text(encoding="utf-8") == TABLE.read_text(encoding="utf-8")
