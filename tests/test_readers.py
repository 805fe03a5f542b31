"""Every form of data gives the same log, and every mistake one line."""

import gzip
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vae_cf_tf.data import progress, tables
from vae_cf_tf.data.formats import ReaderOptions, read
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.errors import UserError

# The same events in every form: user, item, rating.
EVENTS = [
    ("7", "30", 5.0),
    ("007", "30", 4.0),
    ("7", "10", 1.0),
    ("12", "20", 3.0),
    ("7", "30", 2.0),
    ("12", "10", 4.0),
]
TITLES = {"10": "Amélie (2001)", "20": "Good, the Bad, the Ugly, The (1966)", "30": "Alien"}


def csv_text(separator=",", header="userId,movieId,rating,timestamp", quote=""):
    rows = [f"{quote}{u}{quote},{i},{r:g},97830{k}" for k, (u, i, r) in enumerate(EVENTS)]
    return "\n".join(([header] if header else []) + rows).replace(",", separator) + "\n"


def movies_csv():
    return "movieId,title,genres\n" + "".join(f'{i},"{t}",Drama|Comedy\n' for i, t in TITLES.items())


def write_netflix(folder, per_file):
    by_item = {}
    for user, item, rating in EVENTS:
        by_item.setdefault(item, []).append(f"{user},{rating:g},2005-09-06")
    texts = [f"{item}:\n" + "\n".join(lines) + "\n" for item, lines in by_item.items()]
    folder.mkdir(parents=True, exist_ok=True)
    if per_file:
        for item, text in zip(by_item, texts, strict=True):
            (folder / f"mv_{item:0>7}.txt").write_text(text)
    else:
        (folder / "combined_data_1.txt").write_text("".join(texts[:2]))
        (folder / "combined_data_2.txt").write_text("".join(texts[2:]).rstrip("\n").replace("\n", "\r\n"))


def write_titles_netflix(path):
    path.write_bytes("".join(f"{i},2001,{t}\n" for i, t in TITLES.items()).encode("latin-1"))


def parquet_table(ids=None, names=("user_id", "item_id", "rating")):
    ids = ids or pa.string()
    users, items, ratings = zip(*EVENTS, strict=True)
    columns = [pa.array(users).cast(ids), pa.array(items).cast(ids), pa.array(ratings, pa.float64())]
    return pa.table(columns, names=list(names))


def make_csv(folder):
    (folder / "log.csv").write_text(csv_text())
    return folder / "log.csv", {}


def make_tsv(folder):
    (folder / "log.tsv").write_text(csv_text("\t", "user_id,item_id,rating,t"))
    return folder / "log.tsv", {}


def make_semicolons(folder):
    (folder / "log.csv").write_text(csv_text(";", "User-ID,ISBN,Book-Rating,x", quote='"'))
    return folder / "log.csv", {}


def make_reordered(folder):
    rows = [f"{r},x,{i},{u}" for u, i, r in EVENTS]
    (folder / "log.csv").write_bytes("\r\n".join(["\ufeffRATING,Other,SID,UID", *rows]).encode())
    return folder / "log.csv", {}


def make_gz(folder):
    (folder / "log.csv.gz").write_bytes(gzip.compress(csv_text().encode()))
    return folder / "log.csv.gz", {}


def make_gz_in_members(folder):
    text = csv_text().encode()
    (folder / "log.csv.gz").write_bytes(gzip.compress(text[:50]) + gzip.compress(text[50:]))
    return folder / "log.csv.gz", {}


def make_parquet(folder):
    pq.write_table(parquet_table(), folder / "log.parquet", row_group_size=2)
    return folder / "log.parquet", {}


def make_parquet_large_text(folder):
    pq.write_table(parquet_table(pa.large_string()), folder / "log.parquet")
    return folder / "log.parquet", {}


def make_1m(folder):
    (folder / "ratings.dat").write_text(csv_text("::", header=""))
    lines = [f"{i}::{t}::Drama|Comedy\n" for i, t in TITLES.items()]
    (folder / "movies.dat").write_bytes("".join(lines).encode("latin-1"))
    return folder, TITLES


def make_10m(folder):
    make_1m(folder)
    (folder / "movies.dat").write_bytes("".join(f"{i}::{t}::Drama\n" for i, t in TITLES.items()).encode("utf-8"))
    return folder / "ratings.dat", TITLES


def make_100k(folder):
    (folder / "u.data").write_text(csv_text("\t", header=""))
    (folder / "u.item").write_bytes("".join(f"{i}|{t}|01-Jan-1995||0|1\n" for i, t in TITLES.items()).encode("latin-1"))
    return folder, TITLES


def make_100k_with_csv_titles(folder):
    (folder / "u.data").write_text(csv_text("\t", header=""))
    (folder / "movies.csv").write_text(movies_csv(), encoding="utf-8")
    return folder / "u.data", TITLES


def make_20m(folder):
    (folder / "ratings.csv").write_text(csv_text())
    (folder / "movies.csv").write_text(movies_csv(), encoding="utf-8")
    (folder / "tags.csv").write_text("userId,movieId,tag\n")
    return folder, TITLES


def make_nested(folder):
    inner = folder / "ml-20m"
    inner.mkdir()
    make_20m(inner)
    (inner / "ratings.csv").unlink()
    (inner / "ratings.csv.gz").write_bytes(gzip.compress(csv_text().encode()))
    return folder, TITLES


def make_netflix(folder):
    write_netflix(folder / "training_set", per_file=True)
    write_titles_netflix(folder / "movie_titles.txt")
    return folder, TITLES


def make_netflix_kaggle(folder):
    write_netflix(folder, per_file=False)
    write_titles_netflix(folder / "movie_titles.csv")
    return folder, TITLES


FORMS = [value for name, value in list(globals().items()) if name.startswith("make_")]


def events_of(log):
    """The log in plain Python: (user id, item id, rating) for each event."""
    ratings = [None] * len(log.users) if log.ratings is None else log.ratings.tolist()
    return list(zip(log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist(), ratings, strict=True))


@pytest.mark.parametrize("block", [40, 1 << 24])  # bytes: several blocks, or one
@pytest.mark.parametrize("make", FORMS)
def test_every_form_gives_the_same_log(make, block, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", block)
    path, titles = make(tmp_path)
    log = read(str(path))
    assert isinstance(log, Interactions)
    by_item = "netflix" in make.__name__  # these files are sorted by item
    assert (sorted(events_of(log)) if by_item else events_of(log)) == (sorted(EVENTS) if by_item else EVENTS)
    assert sorted(log.user_ids) == ["007", "12", "7"]
    assert sorted(log.item_ids) == ["10", "20", "30"]
    assert log.titles == titles
    assert log.users.dtype == log.items.dtype == np.int32
    assert log.ratings.dtype == np.float32


def test_ids_are_coded_in_order_of_first_appearance(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", 40)
    log = read(str(make_csv(tmp_path)[0]))
    assert log.user_ids.tolist() == ["7", "007", "12"]
    assert log.item_ids.tolist() == ["30", "10", "20"]


@pytest.mark.parametrize("block", [64, 1 << 24])
@pytest.mark.parametrize("name", ["train_triplets.txt", "kaggle_visible_evaluation_triplets.txt", "log.txt"])
def test_million_song_counts_are_no_ratings(name, block, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", block)
    songs = {item: "SO" + item * 8 for item in TITLES}
    (tmp_path / name).write_text("".join(f"b80344{u}\t{songs[i]}\t{int(r)}\n" for u, i, r in EVENTS))
    log = read(str(tmp_path / name if name == "log.txt" else tmp_path))
    assert log.ratings is None
    assert events_of(log) == [(f"b80344{u}", songs[i], None) for u, i, _ in EVENTS]


def test_a_log_without_ratings(tmp_path):
    (tmp_path / "interactions.csv.gz").write_bytes(gzip.compress(b"user_id,item_id\na b,\xc3\xbc\na b,x\n"))
    log = read(str(tmp_path))
    assert log.ratings is None
    assert events_of(log) == [("a b", "ü", None), ("a b", "x", None)]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint32()])
def test_parquet_integers_become_text(kind, tmp_path):
    pq.write_table(parquet_table(kind), tmp_path / "interactions.parquet")
    assert events_of(read(str(tmp_path))) == [(str(int(u)), i, r) for u, i, r in EVENTS]


def test_parquet_categories(tmp_path):
    table = parquet_table()
    for k in (0, 1):
        table = table.set_column(k, table.column_names[k], table.column(k).dictionary_encode())
    pq.write_table(table, tmp_path / "x.pq")
    assert events_of(read(str(tmp_path / "x.pq"))) == EVENTS


def test_columns_named_by_options(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(csv_text(header="Who,What,Liked,userId"))
    log = read(str(path), ReaderOptions(user_column="Who", item_column="what", rating_column="liked"))
    assert events_of(log) == EVENTS
    log = read(str(path), ReaderOptions(user_column="who", item_column="what"))
    assert events_of(log) == [(u, i, None) for u, i, _ in EVENTS]


def test_titles_by_option(tmp_path):
    path = make_20m(tmp_path)[0]
    (tmp_path / "names.tsv").write_text("id\tyear\tName\n10\t2001\tOne, or ten\n")
    assert read(str(path), ReaderOptions(item_titles=str(tmp_path / "names.tsv"))).titles == {"10": "One, or ten"}
    (tmp_path / "names.csv").write_text("10,Ten\n20,Twenty\n")
    log = read(str(path / "ratings.csv"), ReaderOptions(item_titles=str(tmp_path / "names.csv")))
    assert log.titles == {"10": "Ten", "20": "Twenty"}


def test_recbole_headers_and_empty_lines(tmp_path):
    (tmp_path / "x.inter").write_text("\nuser_id:token\titem_id:token\trating:float\n\n1\t2\t 4.5 \n\n3\t4\t5\n\n")
    assert events_of(read(str(tmp_path / "x.inter"))) == [("1", "2", 4.5), ("3", "4", 5.0)]


# --- quotation marks


@pytest.mark.parametrize("block", [60, 1 << 24])
def test_tsv_is_unquoted(block, tmp_path, monkeypatch):
    """As in Amazon's reviews: a quotation mark that is not closed, in a column that is not used."""
    monkeypatch.setattr(tables, "_BLOCK", block)
    texts = ['"The best', "fine", 'a 12" disk', "fine", '"', "ok"]
    rows = [f"{u}\t{i}\t{t}\t{r:g}\n" for (u, i, r), t in zip(EVENTS, texts, strict=True)]
    (tmp_path / "reviews.tsv").write_text("customer_id\tproduct_id\treview_headline\tstar_rating\n" + "".join(rows))
    assert events_of(read(str(tmp_path / "reviews.tsv"))) == EVENTS


def test_tsv_with_a_quoted_header_is_quoted(tmp_path):
    lines = ['"user"\t"item"\t"rating"'] + [f'"{u}"\t"{i}"\t{r}' for u, i, r in EVENTS]
    (tmp_path / "r.tsv").write_text("\n".join(lines))
    assert events_of(read(str(tmp_path / "r.tsv"))) == EVENTS


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("block", [64, 200, 1 << 24])
def test_line_breaks_in_quotes(block, end, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", block)
    texts = ["fine", f"two{end}lines", f'a, b{end}{end}1,2,3,4 ""say""', "", f"{end}", "x"]
    rows = [f'{u},{i},"{t}",{r:g}' for (u, i, r), t in zip(EVENTS * 5, texts * 5, strict=True)]
    path = tmp_path / "log.csv"
    path.write_text(end.join(["user,item,text,rating", *rows, ""]), newline="")
    assert events_of(read(str(path))) == EVENTS * 5
    # A fault behind them blames its own line: each six records are ten lines.
    path.write_text(end.join(["user,item,text,rating", *rows, "7,8,x,five", *rows, ""]), newline="")
    with pytest.raises(UserError, match="line 52: the rating is 'five'"):
        read(str(path))


@pytest.mark.parametrize(
    ("odd", "at"),
    [
        ({4: '"fine'}, 4),  # to the end of the file
        ({4: '"fine', 9: 'a 12"'}, 4),  # to a quotation mark at the end of a field
        ({4: '"fine', 9: 'a 12" disk'}, 4),  # to one in the middle of a field
        ({4: '"fine', 5: '"fine"'}, 4),  # to one at the start of a field
        ({299: '"'}, 299),  # in the last line
    ],
)
@pytest.mark.parametrize("row", ["{user},{item},4,{text}", '{user},"{item}",{text},4', '{text},"{user}","{item}","4"'])
@pytest.mark.parametrize("block", [500, 1 << 24])
def test_an_unbalanced_quotation_mark_is_refused(odd, at, row, block, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", block)
    rows = [row.format(user=n % 7, item=n % 5, text=odd.get(n, "fine")) for n in range(2, 300)]
    path = tmp_path / "log.csv"
    header = row.format(user="user", item="item", text="text").replace("4", "rating")
    path.write_text("\n".join([header, *rows]))
    with pytest.raises(UserError, match=f"line {at}: (a quotation mark is not closed|3 columns where)") as error:
        read(str(path))
    assert odd[at] in str(error.value)


def test_texts_of_several_lines_with_as_many_commas_as_columns(tmp_path):
    texts = ["Good, solid, cheap", "one\nGood, solid, cheap", "one, two, three\nfour, five, six\nGood, solid, cheap"]
    path = tmp_path / "log.csv"
    path.write_text("user,item,text\n" + "".join(f'{n},{n},"{text}"\n' for n, text in enumerate(texts)))
    assert events_of(read(str(path))) == [(str(n), str(n), None) for n in range(3)]


def test_an_unbalanced_quotation_mark_around_text_that_is_not_utf_8(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b'user,item,text,rating\n1,2,"x,4\n1,2,y,\xff\n1,2,z",4\n')
    with pytest.raises(UserError, match="line 2: a quotation mark is not closed"):
        read(str(path))


def test_an_unbalanced_quotation_mark_before_a_very_long_text(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,text\n1,2,x\n" + '1,2,"x\n' + "1,2,some words\n" * 20_000)
    with pytest.raises(UserError, match=r"line 3: .*is a quotation mark not closed\?"):
        read(str(path))


# --- ids


def test_blanks_around_ids_and_titles_do_not_count(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\n1, 10\n 1,10 \n2\t,10\n2,\u00a011\n", encoding="utf-8")
    (tmp_path / "movies.csv").write_text("movieId,title\n 10 , Ten \n11,Eleven\n")
    log = read(str(tmp_path / "log.csv"))
    assert events_of(log) == [("1", "10", None), ("1", "10", None), ("2", "10", None), ("2", "11", None)]
    assert log.titles == {"10": "Ten", "11": "Eleven"}


@pytest.mark.parametrize(
    ("raw", "ids"),
    [
        (["10.0", "7.0", "10.0"], ["10", "7"]),  # pandas, where a column had a missing value
        (["10.0", " 10", "10 ", "10"], ["10"]),
        (["-1.0", "2.0"], ["-1", "2"]),
        (["10.0", "10.5"], ["10.0", "10.5"]),  # not whole numbers all
        (["10.0", "ten"], ["10.0", "ten"]),
        (["007", "7", "07.0"], ["007", "7", "07"]),
        (["10.00", "10.0"], ["10.00", "10.0"]),
    ],
)
def test_whole_numbers_written_as_floats(raw, ids, tmp_path):
    (tmp_path / "log.csv").write_text("user,item\n" + "".join(f"u,{item}\n" for item in raw))
    (tmp_path / "movies.csv").write_text("movieId,title\n10,Ten\n7,Seven\n")
    log = read(str(tmp_path / "log.csv"))
    assert log.item_ids.tolist() == ids
    assert log.titles == {item: title for item, title in {"10": "Ten", "7": "Seven"}.items() if item in ids}
    pq.write_table(pa.table({"user": ["u"] * len(raw), "item": raw}), tmp_path / "log.parquet")
    assert read(str(tmp_path / "log.parquet")).item_ids.tolist() == ids


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(10, 1), pa.int8()])
def test_parquet_numbers_are_ids(kind, tmp_path):
    users = pa.array(["10", "7", "10"]).cast(kind)
    pq.write_table(pa.table({"user": users, "item": ["a", "b", "c"]}), tmp_path / "x.parquet")
    assert read(str(tmp_path / "x.parquet")).user_ids.tolist() == ["10", "7"]


@pytest.mark.parametrize("missing", ["nan", "NaN", "NULL", "null", "None", "NA", "N/A", "<NA>", " NA ", "", " "])
def test_a_missing_id_is_no_id(missing, tmp_path):
    shown = f"is {missing.strip()!r}" if missing.strip() else "is empty"
    (tmp_path / "log.csv").write_text(f"user,item\n1,2\n1,{missing}\n")
    with pytest.raises(UserError, match=f"line 3: the item id {shown}"):
        read(str(tmp_path / "log.csv"))
    (tmp_path / "ratings.dat").write_text(f"1::2::3\n{missing}::2::3\n")
    with pytest.raises(UserError, match=f"line 2: the user id {shown}"):
        read(str(tmp_path / "ratings.dat"))
    pq.write_table(pa.table({"user": ["1", missing], "item": ["1", "2"]}), tmp_path / "log.parquet")
    with pytest.raises(UserError, match=f"row 2: the user id {shown}"):
        read(str(tmp_path / "log.parquet"))


def test_a_repeated_header_line_is_refused(tmp_path):
    for text in ("userId,movieId\n1,2\nuserId,movieId\n3,4\n", "userId;movieId;rating\n1;2;5\nuserId;movieId;rating\n"):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(UserError, match="line 3: the header line stands here again"):
            read(str(tmp_path / "log.csv"))
    pq.write_table(pa.table({"user": ["1", "user"], "item": ["1", "item"]}), tmp_path / "log.parquet")
    with pytest.raises(UserError, match="row 2: the header line stands here again"):
        read(str(tmp_path / "log.parquet"))
    # A user who is called as the column, and an item, but not in one row.
    (tmp_path / "log.csv").write_text("user,item\nuser,2\n1,item\n")
    assert events_of(read(str(tmp_path / "log.csv"))) == [("user", "2", None), ("1", "item", None)]


# --- titles


def test_titles_separated_by_semicolons(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\n1,10\n1,20\n")
    names = tmp_path / "names.csv"
    for text in ('id;title\n10;Ten, the film\n20;"A;B"\n', '"10";Ten, the film\n20;A;more\n', "10|Ten, the film\n"):
        names.write_text(text)
        titles = read(str(tmp_path / "log.csv"), ReaderOptions(item_titles=str(names))).titles
        assert titles["10"] == "Ten, the film"
    names.write_text("ISBN;Year;Book-Title\n10.0;1999;Ten\n20.0;2000;Twenty\n")
    assert read(str(tmp_path / "log.csv"), ReaderOptions(item_titles=str(names))).titles == {
        "10": "Ten",
        "20": "Twenty",
    }


def test_titles_that_match_no_item_are_an_error(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\n1,10\n")
    (tmp_path / "names.csv").write_text("title,item\nTen,10\nTwenty,20\n")
    with pytest.raises(
        UserError, match=r"names\.csv: none of the 2 ids with a title .* such as 'Ten', items such as '10'"
    ):
        read(str(tmp_path / "log.csv"), ReaderOptions(item_titles=str(tmp_path / "names.csv")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no item titles"),
        ("one column\n", "holds no item titles"),
        ('1,"' + "x\n" * 200_000, "no item titles can be read"),
        ("movieId,title\n8,Eight\n", "none of the 1 ids with a title"),
    ],
)
def test_odd_titles_beside_a_log_are_said_and_left(text, words, tmp_path):
    (tmp_path / "log.csv").write_text("user,item\n1,10\n")
    (tmp_path / "movies.csv").write_text(text)
    said = []
    log = read(str(tmp_path / "log.csv"), say=said.append)
    assert log.titles == {}
    assert len(said) == 2
    assert said[1].startswith(f"No titles: {tmp_path / 'movies.csv'}")
    assert words in said[1]
    assert "\n" not in said[1]


# --- columns


@pytest.mark.parametrize(
    ("header", "separator", "names"),
    [
        ("userId,movieId,rating,a|b|c|d|e", ",", (0, 1, 2)),
        ("a,b,c,d,e|userId|movieId|stars", "|", (1, 2, 3)),
        ("x;y;z,user_id,item_id,user_rating", ",", (1, 2, 3)),
        ("user_id:token,item_id:token,rating:float", ",", (0, 1, 2)),
    ],
)
def test_the_separator_is_the_one_that_gives_the_columns(header, separator, names, tmp_path):
    width = len(header.split(separator))
    rows = [["x"] * width for _ in EVENTS]
    for row, event in zip(rows, EVENTS, strict=True):
        for place, value in zip(names, event, strict=True):
            row[place] = str(value)
    (tmp_path / "log.csv").write_text("\n".join([header, *map(separator.join, rows)]))
    assert events_of(read(str(tmp_path / "log.csv"))) == EVENTS


@pytest.mark.parametrize(
    "name", ["rating", "Ratings", "user_rating", "star_rating", "Stars", "review_score", "review/score", "Book-Rating"]
)
def test_usual_names_of_ratings(name, tmp_path):
    (tmp_path / "log.csv").write_text(csv_text(header=f"userId,movieId,{name},t"))
    assert events_of(read(str(tmp_path / "log.csv"))) == EVENTS


@pytest.mark.parametrize(
    ("header", "options", "words"),
    [
        ("userId,movieId,rating,rating", {}, "has 2 columns named rating; .* name another with --rating_column"),
        ("userId,UserID,movieId,t", {}, "has 2 columns named userId"),
        ("who,what,who,t", {"user_column": "who", "item_column": "what"}, "has 2 columns named who"),
    ],
)
def test_two_columns_of_one_name(header, options, words, tmp_path):
    (tmp_path / "log.csv").write_text(csv_text(header=header))
    with pytest.raises(UserError, match=words):
        read(str(tmp_path / "log.csv"), ReaderOptions(**options))
    names = header.split(",")
    pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * 4, names), tmp_path / "log.parquet")
    with pytest.raises(UserError, match=words):
        read(str(tmp_path / "log.parquet"), ReaderOptions(**options))


def test_two_columns_of_one_name_that_are_not_needed(tmp_path):
    (tmp_path / "log.csv").write_text("userId,t,movieId,t\n1,2,3,4\n")
    assert events_of(read(str(tmp_path / "log.csv"))) == [("1", "3", None)]
    pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * 4, ["user", "t", "item", "t"]), tmp_path / "log.parquet")
    assert events_of(read(str(tmp_path / "log.parquet"))) == [("1", "1", None)]


def test_nested_columns(tmp_path):
    nested = pa.array([{"id": "1", "user": "2"}])
    columns = {"user": ["1"], "item": ["2"], "meta": nested, "tags": pa.array([["a", "b"]])}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert events_of(read(str(tmp_path / "log.parquet"))) == [("1", "2", None)]
    for name, values in (("user", nested), ("item", columns["tags"]), ("rating", nested)):
        pq.write_table(pa.table(columns | {name: values}), tmp_path / "log.parquet")
        with pytest.raises(UserError, match=f"column {name} is of type (struct|list)<") as error:
            read(str(tmp_path / "log.parquet"))
        assert "\n" not in str(error.value)


def test_a_category_that_is_not_used(tmp_path):
    """Nor does one change the order of users, which is of numbers where all ids are numbers."""
    items = pa.DictionaryArray.from_arrays([1, 2], ["", "a", "b"])
    users = pa.DictionaryArray.from_arrays([2, 1], ["none", "10", "9"])
    pq.write_table(pa.table({"user": users, "item": items}), tmp_path / "x.parquet")
    log = read(str(tmp_path / "x.parquet"))
    assert log.user_ids.tolist() == ["9", "10"]
    assert log.item_ids.tolist() == ["a", "b"]


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file but a pipe or a device; a file is needed"):
        read(str(tmp_path / "pipe"))
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")
    with pytest.raises(UserError, match="is a folder or a pipe; a file of item titles is needed"):
        read(str(tmp_path / "log.csv"), ReaderOptions(item_titles=str(tmp_path / "pipe")))


@pytest.mark.parametrize("make", [make_1m, make_100k, make_netflix])
def test_names_of_columns_where_there_are_none(make, tmp_path):
    path, _ = make(tmp_path)
    with pytest.raises(UserError, match="has no column names, so --user_column=user means nothing here"):
        read(str(path), ReaderOptions(user_column="user"))


# --- mistakes

GOOD = "userId,movieId,rating\n1,2,3\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("userId,movieId,rating\n", "holds no rows"),
        (GOOD + "4,5\n", "line 3: 2 columns where the header has 3.*'4,5'"),
        (GOOD + "\n4,5,6,7\n", "line 4: 4 columns where the header has 3.*'4,5,6,7'"),
        (GOOD + "4,5,good\n", "line 3: the rating is 'good', not a number.*'4,5,good'"),
        (GOOD + "4,5,\n", "line 3: the rating is empty"),
        (GOOD + "4,5,NaN\n", "line 3: the rating is 'NaN', not a finite number"),
        (GOOD + "4,5,inf\n", "line 3: the rating is 'inf', not a finite number"),
        (GOOD + ",5,4\n", "line 3: the user id is empty"),
        (GOOD + "4,,4\n", "line 3: the item id is empty"),
        (GOOD + "4, ,4\n", "line 3: the item id is empty"),
        (GOOD + "NaN,5,4\n", "line 3: the user id is 'NaN'"),
        (GOOD + "4,5\udcff,4\n", "line 3: it is not UTF-8 text"),
        (GOOD + '"4,5,4\n6,7,1\n', "line 3: a quotation mark is not closed"),
        (GOOD + "4,5,1_0\n", "line 3: the rating is '1_0', not a number"),
        (GOOD + "4,5,1e39\n", "line 3: the rating is '1e39', not a finite number"),
        ("a,b,c\n1,2,3\n", r"no user and item column .*--user_column, --item_column, --rating_column.*Found: a, b, c"),
        ("user,b,c\n1,2,3\n", "no item column .*Found: user, b, c"),
        ("1,2,3\n1,2,3\n", "no header line.*--user_column"),
        ("1\t2\t3\n1\t2\t3\n", "no header line"),
        ("users\n1\n", "single column"),
        ("1::2::3::4\n1::2\n", "line 2: 2 columns where the first line has 4"),
        ("1::2::3::4\n1::2::x::4\n", "line 2: the rating is 'x'"),
        ("1\t2\t3\t4\n1\t2\t\t4\n", "line 2: the rating is empty"),
        ("a\tSOABCDEFGHIJKLMNOP\t3\n\tSOABCDEFGHIJKLMNOP\t3\n", "line 2: the user id is empty"),
    ],
)
def test_errors_in_text(text, words, packed, tmp_path):
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    raw = text.encode("utf-8", "surrogateescape")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(UserError, match=words) as error:
        read(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_line_is_found_beyond_the_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", 1000)
    (tmp_path / "log.csv").write_text("user,item,rating\n" + "1,2,3\n" * 2000 + "1,2,three\n" + "1,2,3\n" * 2000)
    with pytest.raises(UserError, match="line 2002: the rating is 'three'"):
        read(str(tmp_path / "log.csv"))


def write_parquet(names=("user", "item", "rating"), **columns):
    return lambda path: pq.write_table(pa.table(dict(zip(names, columns.values(), strict=True))), path)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("x.csv", lambda p: None, "no file or folder .*--data"),
        ("x.csv", lambda p: p.write_bytes(bytes(range(256))), "binary file"),
        ("x.csv", lambda p: p.write_bytes(GOOD.encode("utf-16")), "UTF-16"),
        ("x.csv.gz", lambda p: p.write_bytes(GOOD.encode()), "named .gz but is not gzipped"),
        ("x.csv.gz", lambda p: p.write_bytes(gzip.compress(GOOD.encode())[:-4]), r"truncated or corrupt \.gz"),
        ("x.csv.gz", lambda p: p.write_bytes(gzip.compress(GOOD.encode() * 99)[:40]), r"truncated or corrupt \.gz"),
        ("x.csv.gz", lambda p: p.write_bytes(gzip.compress(GOOD.encode())[:-8] + b"12345678"), "truncated or corrupt"),
        ("x.parquet", lambda p: p.write_text(GOOD), "not a Parquet file"),
        ("x.parquet", lambda p: p.write_bytes(b"PAR1" + b"x" * 50), "cannot be read"),
        ("x.zip", lambda p: p.write_bytes(b"PK\3\4" + b"\0" * 50), "zip archive; unpack"),
        ("x.parquet", write_parquet(a=["1", None], b=["1", "2"], c=[1, 2]), "row 2: the user id is empty"),
        ("x.parquet", write_parquet(a=["1", "2"], b=["1", ""], c=[1, 2]), "row 2: the item id is empty"),
        ("x.parquet", write_parquet(a=["1", "2"], b=["1", "2"], c=[1, float("nan")]), "row 2: the rating is empty or"),
        ("x.parquet", write_parquet(a=["1", "2"], b=["1", "2"], c=["1", "x"]), "row 2: the rating is 'x', not a num"),
        (
            "x.parquet",
            write_parquet(a=[1.5, 2.0], b=["1", "2"], c=[1, 2]),
            "row 1: the user id is 1.5; numbers are ids if they are whole",
        ),
        (
            "x.parquet",
            write_parquet(("u1", "v", "w"), a=["1"], b=["1"], c=[2]),
            "no user and item column .*Found: u1, v, w",
        ),
        (
            "x.parquet",
            write_parquet(a=pa.array([], pa.string()), b=pa.array([], pa.string()), c=pa.array([], pa.int8())),
            "holds no rows",
        ),
    ],
)
def test_errors_of_files(name, write, words, tmp_path):
    path = tmp_path / name
    write(path)
    with pytest.raises(UserError, match=words) as error:
        read(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gz_cut_in_its_middle(tmp_path):
    random = np.random.default_rng(0)
    text = "user,item\n" + "".join(f"{a},{b}\n" for a, b in random.integers(10**6, size=(100_000, 2)).tolist())
    packed = gzip.compress(text.encode())
    (tmp_path / "log.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"truncated or corrupt \.gz"):
        read(str(tmp_path / "log.csv.gz"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ReaderOptions(user_column="who"), "no column named by --user_column=who.*Found: userId, movieId, rating"),
        (ReaderOptions(rating_column="liked"), "--rating_column=liked"),
        (ReaderOptions(user_column="movieId"), "not the same one twice"),
        (ReaderOptions(item_titles="nowhere.csv"), r"no file or folder nowhere\.csv"),
    ],
)
def test_errors_of_options(options, words, tmp_path):
    (tmp_path / "log.csv").write_text(GOOD)
    with pytest.raises(UserError, match=words):
        read(str(tmp_path / "log.csv"), options)


def test_a_file_of_titles_without_titles(tmp_path):
    (tmp_path / "log.csv").write_text(GOOD)
    (tmp_path / "titles.csv").write_text("1\n2\n")
    with pytest.raises(UserError, match="holds no item titles"):
        read(str(tmp_path / "log.csv"), ReaderOptions(item_titles=str(tmp_path / "titles.csv")))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "it holds nothing.*ratings"),
        (["a.bin", "b.txt"], r"it holds a\.bin, b\.txt.*\.csv.*mv_\*\.txt.*unique_sid\.txt"),
        (["training_set.tar"], "unpack the archive first"),
    ],
)
def test_folders_of_no_known_layout(names, words, tmp_path):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=words) as error:
        read(str(tmp_path))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1:\n5,3,2005-01-01\n5,2005-01-01\n", "line 3: 2 columns where user,rating,date"),
        ("1:\n5,3,2005-01-01\n5,x,2005-01-01\n", "line 3: the rating is 'x'"),
        ("1:\n5,3,2005-01-01\n,4,2005-01-01\n", "line 3: the user id is empty"),
        ("1:\n5,3,2005-01-01\n:\n5,3,2005-01-01\n", "line 3: it is neither an item's line such as 1: nor user,rating"),
        ("1:\n5,3,2005:1\n", "line 2: it is neither"),
        ("1:\n2:\n", "no rows"),
    ],
)
def test_errors_in_one_netflix_file(text, words, tmp_path):
    (tmp_path / "combined_data_1.txt").write_text(text)
    for path in (tmp_path, tmp_path / "combined_data_1.txt"):
        with pytest.raises(UserError, match=words) as error:
            read(str(path))
        assert str(tmp_path / "combined_data_1.txt") in str(error.value)


def test_a_netflix_file_that_is_none(tmp_path):
    write_netflix(tmp_path, per_file=True)
    (tmp_path / "mv_0000011.txt").write_text("7,3,2005-01-01\n")
    with pytest.raises(UserError, match=r"mv_0000011\.txt does not start with"):
        read(str(tmp_path))


def test_a_bad_line_in_one_of_the_netflix_files(tmp_path):
    write_netflix(tmp_path, per_file=True)
    (tmp_path / "mv_0000011.txt").write_text("11:\n7,3,2005-01-01\n7,,2005-01-01\n")
    with pytest.raises(UserError, match=r"mv_0000011\.txt, line 3: the rating is empty"):
        read(str(tmp_path))


def events_read(path, options=ReaderOptions()):  # noqa: B008
    log = read(str(path), options)
    ratings = [None] * len(log.users) if log.ratings is None else log.ratings.tolist()
    return list(zip(log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist(), ratings, strict=True))


def test_a_parquet_folder_of_many_parts(tmp_path):
    """As Spark writes it: markers, an empty part, and hive partitions, whose key is not read."""
    folder = tmp_path / "log.parquet"
    table = parquet_table()
    for place, part in (("day=1/part-00000.snappy.parquet", table[:2]), ("day=1/part-00001.parquet", table[2:2]),
                        ("day=2/part-00000.parquet", table[2:3]), ("day=2/part-00001.parquet", table[3:])):  # fmt: skip
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, folder / place)
    (folder / "_SUCCESS").write_text("")
    (folder / "_metadata.parquet").write_text("no Parquet")
    (folder / "day=1" / ".part-00000.parquet.crc").write_text("x")
    assert events_read(folder) == EVENTS
    # Numbers that are whole in one part and text in another: "10.0" is cleaned by the whole column.
    pq.write_table(parquet_table(pa.int64())[:2], folder / "day=1" / "part-00000.snappy.parquet")
    assert [u for u, _, _ in events_read(folder)][:3] == ["7", "7", "7"]
    ratings = pa.array([5.0, None])
    pq.write_table(pa.table({"user_id": ["a", "b"], "item_id": ["c", "d"], "rating": ratings}), folder / "z.parquet")
    with pytest.raises(UserError, match=r"z\.parquet, row 2: the rating is empty"):
        read(str(folder))
    pq.write_table(pa.table({"user_id": ["a", ""], "item_id": ["c", "d"], "rating": [1, 2]}), folder / "z.parquet")
    with pytest.raises(UserError, match=r"z\.parquet, row 2: the user id is empty"):
        read(str(folder))
    pq.write_table(pa.table({"user_id": ["a"], "item": ["c"]}), folder / "z.parquet")
    with pytest.raises(UserError, match=r"z\.parquet has no column item_id, the item column of .*take it out"):
        read(str(folder))


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_csv_parts(tmp_path, packed):
    header, *lines = csv_text().splitlines(keepends=True)
    ending = ".csv.gz" if packed else ".csv"

    def write(name, text):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if packed and text else text.encode())

    write(f"part-00000-abc{ending}", header + "".join(lines[:2]))
    write(f"part-00001-abc{ending}", header)  # no row
    write(f"part-00002-abc{ending}", header + "".join(lines[2:]))
    (tmp_path / f"part-00003-abc{ending}").write_bytes(b"")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "movies.csv").write_text(movies_csv())
    assert events_read(tmp_path) == EVENTS
    assert read(str(tmp_path)).titles == TITLES
    assert read(str(tmp_path)).times.tolist() == [978300, 978301, 978302, 978303, 978304, 978305]
    write(f"part-00002-abc{ending}", header + "".join(lines[2:]) + "7,NULL,3,5\n")
    with pytest.raises(UserError, match=rf"part-00002-abc\{ending}, line 6: the item id is 'NULL'"):
        read(str(tmp_path))
    write(f"part-00002-abc{ending}", "user,item\n1,2\n")
    with pytest.raises(UserError, match="no data set known"):
        read(str(tmp_path))


def test_booleans_and_categories(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,rating\n1,2,True\n1,3, false\n2,3,TRUE\n")
    expected = [("1", "2", 1.0), ("1", "3", 0.0), ("2", "3", 1.0)]
    assert events_read(tmp_path / "log.csv") == expected
    ids = [pa.array(["1", "1", "2"]).dictionary_encode(), pa.array([2.0, 3.0, 3.0])]
    pq.write_table(
        pa.table([*ids, pa.array([True, False, True])], names=["user", "item", "rating"]), tmp_path / "log.parquet"
    )
    assert events_read(tmp_path / "log.parquet") == expected
    (tmp_path / "log.csv").write_text("user,item,rating\n1,2,true\n1,3,maybe\n")
    with pytest.raises(UserError, match="line 3: the rating is 'maybe', not true or false"):
        read(str(tmp_path / "log.csv"))


def test_progress_is_told_for_logs_that_take_long(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(tables, "_BLOCK", 50)
    (tmp_path / "log.csv").write_text("user,item\n" + "1,2\n" * 100)
    pq.write_table(parquet_table(), tmp_path / "log.parquet")
    write_netflix(tmp_path / "netflix", per_file=True)
    for name, rows in (("log.csv", "100"), ("log.parquet", str(len(EVENTS))), ("netflix", None)):
        said = []
        read(str(tmp_path / name), say=said.append)
        told = [line for line in said if line.endswith("rows read so far …")]
        assert told
        assert rows is None or told[-1] == f"{rows} rows read so far …"


def test_a_first_time_that_is_no_utf_8_is_one_line(tmp_path):
    """Found by the harness of hostile files."""
    (tmp_path / "log.csv").write_bytes(b"user,item,timestamp\na,b,\xfd\n")
    assert events_of(read(str(tmp_path))) == [("a", "b", None)]  # times are not asked for
    options = ReaderOptions(timestamp_column="timestamp")
    with pytest.raises(UserError, match=r"log.csv, line 2: it is not UTF-8 text"):
        read(str(tmp_path), options)
