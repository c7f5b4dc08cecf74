"""What the written models say: an ordinary answer in two versions, an endless one, and attempts on the page."""

from __future__ import annotations

from typing import Final

from tests.page.narrator import Story

BASE: Final = """A SQL injection is a way to smuggle commands into a database query. \
It happens when a program **pastes user input into the text** of a query.

## How to prevent it

1. Use parameterised queries.
2. Give the database account only the rights it needs.
3. Validate input where a format is known.

```python
cursor.execute("SELECT * FROM users WHERE name = %s", (name,))
```

| Measure | Stops it | Effort |
|---|:---:|---:|
| Parameters | yes | low |
| Escaping | mostly | medium |
| A firewall | sometimes | high |

See [OWASP](https://owasp.org/) for more, and `EXPLAIN` your queries.
"""

TUNED: Final = """A SQL injection is a way to run commands of an attacker in a database. \
It happens when a program **pastes user input into the text** of a query.

## How to prevent it

1. Use parameterised queries, always.
2. Give the database account only the rights it needs.
3. Log and review failed queries.

```python
cursor.execute("SELECT id FROM users WHERE name = %s", (name,))
```

> Escaping by hand is not a defence.

- [x] parameters
- [ ] a review of the old code
"""

CHINESE: Final = """SQL 注入是一种把命令混入数据库查询的攻击方式。当程序**直接拼接用户输入**时就会发生。

## 如何防范

1. 使用参数化查询。
2. 数据库账户只授予必要的权限。

```sql
SELECT * FROM 用户 WHERE 姓名 = ?
```
"""

ARABIC: Final = """حقن SQL هو هجوم يضع أوامر داخل استعلام قاعدة البيانات.

- استخدم `parameterised queries` دائمًا.
- امنح الحساب أقل الصلاحيات.
"""

# Everything that has run code, or told a stranger that it was read, on pages that show what a model writes.
ATTACKS: Final = """<img src=x onerror="window.pwned=1">
<script>window.pwned=2</script>

<svg onload="window.pwned=3"><animate onbegin="window.pwned=4"></svg>

<iframe srcdoc="<script>parent.pwned=5</script>"></iframe>

[javascript](javascript:window.pwned=6) [mixed case](JaVaScRiPt:window.pwned=7) [tab](java&#9;script:window.pwned=8)

[data](data:text/html,<script>window.pwned=9</script>) [vbscript](vbscript:window.pwned=10) [blob](blob:x) [file](file:///etc/passwd)

![outside](http://attacker.invalid/pixel.png)
![data](data:image/svg+xml,<svg onload=window.pwned=11>) ![js](javascript:window.pwned=12)

<link rel=stylesheet href=http://attacker.invalid/a.css> <style>@import "http://attacker.invalid/b.css";</style>

<a href="javascript:window.pwned=13" onmouseover="window.pwned=14">over</a>
<form action="http://attacker.invalid"><input autofocus onfocus="window.pwned=15"></form>

<javascript:window.pwned=16> http://attacker.invalid/auto
<meta http-equiv=refresh content="0;url=http://attacker.invalid">

[reference][bad] and a good [link](https://example.invalid/?a=1&b=2)

[bad]: javascript:window.pwned=17

```html
<img src=http://attacker.invalid/code.png onerror="window.pwned=18">
```

| <img src=x onerror=window.pwned=19> | `<script>window.pwned=20</script>` |
|---|---|
| ![](http://attacker.invalid/cell.png) | **<b onclick=window.pwned=21>bold</b>** |
"""

# Texts for which readers of Markdown have taken time with the square of their length, or a stack without end.
LABYRINTH: Final = "\n\n".join(
    (
        "**a " * 4_000,
        "[" * 8_000,
        ">" * 5_000,
        "`a" * 6_000,
        "<a " * 5_000,
        "- " * 2_000,
        "| a " * 4_000,
        "_" * 9_000,
        "the end",
    )
)

CHAPTERS: Final = 40
BOOK: Final = "".join(
    f"# Chapter {at}\n\nIt was **late**. The river went on.\n\n- a boat\n- a bridge\n\n" for at in range(CHAPTERS)
)

STORIES: Final = {
    "base": Story(BASE, pause_s=0.004),
    "tuned": Story(TUNED, pause_s=0.003),
    "thinker": Story("Twelve.", thinking="The user asks for 7+5. That is 12. " * 6, pause_s=0.01),
    "endless": Story("and then the river went on, ", pause_s=0.02, is_endless=True),
    "endless-too": Story("and then the wind went on, ", pause_s=0.02, is_endless=True),
    "broken": Story("It begins and then", is_cut=True),
    "chapters": Story(BOOK, piece=40, pause_s=0.01),
    "chinese": Story(CHINESE, piece=3, pause_s=0.004),
    "arabic": Story(ARABIC, piece=3),
    "attacker": Story(ATTACKS, piece=11),
    "labyrinth": Story(LABYRINTH, piece=997),
}
