"""Fill a dict, then look its entries up in random order: about 300 MiB of live objects, all of them needed."""
import random

random.seed(7)
table = {f"name {i}": (i, str(i) * 5) for i in range(900_000)}
check = 0
for _ in range(45_000):
    i = random.randrange(len(table))
    number, text = table[f"name {i}"]
    assert text == str(number) * 5
    check = (check * 31 + number) % 2_147_483_647
print(len(table), "entries, check", check)
