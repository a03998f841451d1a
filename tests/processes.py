"""What the kernel knows about a process."""

import re
from pathlib import Path

from tests.requirements import require


def resident_bytes(pid: int, *, peak: bool = False) -> int:
    """The memory that a process has in use now, or (`peak`) the most that it ever had."""
    path = Path(f"/proc/{pid}/status")
    require("proc", path.exists(), "there is no /proc")
    found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", path.read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
