"""The accounts under which AWS publishes its images: one for each region and group of images.

Sagesmith looks at an image's repository and tag alone; AWS pulls the image from the account that the URI names.

Source: the image URI configurations of the `sagemaker` package 2.257.
"""

from __future__ import annotations

from functools import cache
from typing import Final

__all__ = ["FALLBACK_REGION", "domain", "registry"]

FALLBACK_REGION: Final = "us-east-1"
_GROUPS: Final = ("algorithms", "text", "lda", "deepar", "open", "frameworks")
_ACCOUNTS: Final = """
    af-south-1     455444449433 455444449433 -            455444449433 510948584623 626614931356
    ap-east-1      286214385809 286214385809 -            286214385809 651117190479 871362719292
    ap-east-2      -            -            -            -            -            975050140332
    ap-northeast-1 351501993468 501404015308 258307448986 633353088612 354813040037 763104351884
    ap-northeast-2 835164637446 306986355934 293181348795 204372634319 366743142698 763104351884
    ap-northeast-3 867004704886 867004704886 -            867004704886 867004704886 364406365360
    ap-south-1     991648021394 991648021394 991648021394 991648021394 720646828776 763104351884
    ap-south-2     628508329040 628508329040 -            628508329040 628508329040 772153158452
    ap-southeast-1 475088953585 475088953585 475088953585 475088953585 121021644041 763104351884
    ap-southeast-2 712309505854 544295431143 297031611018 514117268639 783357654285 763104351884
    ap-southeast-3 951798379941 951798379941 -            951798379941 951798379941 907027046896
    ap-southeast-4 106583098589 106583098589 -            106583098589 106583098589 457447274322
    ap-southeast-5 -            -            -            -            -            550225433462
    ap-southeast-6 -            -            -            -            -            633930458069
    ap-southeast-7 -            -            -            -            -            590183813437
    ca-central-1   469771592824 469771592824 469771592824 469771592824 341280168497 763104351884
    ca-west-1      190319476487 190319476487 -            190319476487 190319476487 204538143572
    cn-north-1     390948362332 390948362332 -            390948362332 450853457545 727897471807
    cn-northwest-1 387376663083 387376663083 -            387376663083 451049120500 727897471807
    eu-central-1   664544806723 813361260812 353608530281 495149712605 492215442770 763104351884
    eu-central-2   680994064768 680994064768 -            680994064768 680994064768 380420809688
    eu-north-1     669576153137 669576153137 -            669576153137 662702820516 763104351884
    eu-south-1     257386234256 257386234256 -            257386234256 978288397137 692866216735
    eu-south-2     104374241257 104374241257 -            104374241257 104374241257 503227376785
    eu-west-1      438346466558 685385470294 999678624901 224300973850 141502667606 763104351884
    eu-west-2      644912444149 644912444149 644912444149 644912444149 764974769150 763104351884
    eu-west-3      749696950732 749696950732 -            749696950732 659782779980 763104351884
    il-central-1   898809789911 898809789911 -            898809789911 898809789911 780543022126
    me-central-1   272398656194 272398656194 -            272398656194 272398656194 914824155844
    me-south-1     249704162688 249704162688 -            249704162688 801668240914 217643126080
    mx-central-1   -            -            -            -            -            637423239942
    sa-east-1      855470959533 855470959533 -            855470959533 737474898029 763104351884
    us-east-1      382416733822 811284229777 766337827248 522234722520 683313688378 763104351884
    us-east-2      404615174143 825641698319 999911452149 566113047672 257758044811 763104351884
    us-gov-east-1  237065988967 237065988967 -            237065988967 237065988967 446045086412
    us-gov-west-1  226302683700 226302683700 226302683700 226302683700 414596584902 442386744353
    us-iso-east-1  490574956308 490574956308 490574956308 490574956308 833128469047 -
    us-isob-east-1 765400339828 765400339828 765400339828 765400339828 281123927165 -
    us-isof-east-1 108575199400 108575199400 -            108575199400 108575199400 -
    us-isof-south-1 124985052026 124985052026 -            124985052026 124985052026 -
    us-west-1      632365934929 632365934929 632365934929 632365934929 746614075791 763104351884
    us-west-2      174872318107 433757028032 266724342769 156387875391 246618743249 763104351884
"""


@cache
def _table() -> dict[str, dict[str, str]]:
    rows = (line.split() for line in _ACCOUNTS.strip().splitlines())
    return {region: dict(zip(_GROUPS, accounts, strict=True)) for region, *accounts in rows}


def registry(group: str, region: str) -> str | None:
    """Return the account of *group* in *region*; None where AWS has none.

    A region that is not in the table, such as one made up for a private server, has those of `FALLBACK_REGION`.
    """
    account = _table().get(region, _table()[FALLBACK_REGION])[group]
    return None if account == "-" else account


def domain(region: str) -> str:
    """Return the end of a registry's host name in *region*."""
    for prefix, name in (
        ("cn-", "amazonaws.com.cn"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("us-iso-", "c2s.ic.gov"),
    ):
        if region.startswith(prefix):
            return name
    return "amazonaws.com"
