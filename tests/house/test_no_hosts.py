import re
from pathlib import Path

# Put together here, so that this file does not hold what it looks for.
HOSTS = re.compile(
    "|".join(
        (
            "pypi" + r"\.org",
            "python" + r"hosted",
            "anaconda" + r"\.org",
            "index" + r"-url\b *[=:] *\S",
            "extra-" + "index",
        )
    ),
    flags=re.IGNORECASE,
)
HOMES = re.compile(
    r"(?<![\w.$}<)-])/(?:" + "|".join(("home", "root", "Users", "work", "mnt", "opt", "srv")) + r")/[\w.]+"
)


def lines(texts: dict[Path, str], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}: {line.strip()[:120]}"
        for path, text in texts.items()
        for line in text.splitlines()
        if pattern.search(line)
    ]


def test_no_file_names_a_package_index(texts):
    assert not lines(texts, HOSTS)


def test_no_file_names_a_folder_of_somebodys_machine(texts):
    assert not lines(texts, HOMES)


def test_the_host_test_sees_a_host_and_a_home():
    planted = {Path("a.txt"): "see https://py" + "pi.org/simple\n", Path("b.py"): 'open("/ho' + 'me/ada/lab")\n'}
    assert len(lines(planted, HOSTS)) == 1
    assert len(lines(planted, HOMES)) == 1
