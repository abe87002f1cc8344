"""The first screen of a report as a small PNG, by Chromium and Pillow.

python docs/pictures/first_screen.py REPORT.html OUT.png [WIDTH HEIGHT]
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

from PIL import Image

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--blink-settings=preferredColorScheme=1",
)


def main(report: str, out: str, width: str = "1280", height: str = "900") -> None:
    """Writes the picture in 64 colours."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("No chromium here; apt-get install chromium.")
    page = pathlib.Path(report).resolve().as_uri()
    with tempfile.TemporaryDirectory() as folder:
        shot = pathlib.Path(folder) / "shot.png"
        size = f"--window-size={width},{height}"
        line = [chromium, *FLAGS, f"--user-data-dir={folder}/profile", f"--screenshot={shot}", size]
        subprocess.run([*line, page], check=True, timeout=300, capture_output=True)
        Image.open(shot).convert("RGB").quantize(64).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
