"""What mkdocs cannot do by itself, so that docs/ is a site and can still be read on GitHub (mkdocs.yml names this file).

- Pages that live beside the code (`../src/watchdog/README.md` in the navigation) are brought in from there.
- `rows of PAGE` in the navigation stands for the pages that the first cells of PAGE's tables link to, in their order.
- Links are those of the checkout. One to a page of the site leads to that page, every other one to the repository.
- Headings have GitHub's anchors.
- Pages of Debian's readthedocs theme ask for scripts by names under which it does not have them; that is mended.
- A link that leads nowhere and a page of docs/ that the navigation lacks are warnings, which `--strict` makes errors.
"""

import logging
import posixpath
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"
REPOSITORY = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["repository"]

# Below mkdocs' own logger, whose warnings `--strict` counts.
log = logging.getLogger("mkdocs.hooks.site")


def place(uri):
    """Where a page or picture of the site is in the checkout. Those from beside the code have that path on the site too."""
    return uri if uri in included else f"{DOCS}/{uri}"


def uri(place):
    """What mkdocs calls a file of the checkout."""
    return place if place in included else posixpath.relpath(place, DOCS)


# Paths below the checkout.
included = []


def entries(nav):
    """The navigation with `rows of` written out and pages from beside the code under their names on the site."""
    for item in nav:
        title, value = next(iter(item.items())) if isinstance(item, dict) else (None, item)
        if isinstance(value, list):
            yield {title: list(entries(value))}
        elif value.startswith("rows of "):
            yield from entries(rows(value.removeprefix("rows of ")))
        else:
            path = posixpath.normpath(posixpath.join(DOCS, value))
            if not path.startswith(f"{DOCS}/"):
                included.append(path)
            yield {title: uri(path)} if title else uri(path)


def rows(page):
    """`{text: path}` of each link that begins a row of a table of the page; paths are relative to docs/."""
    text = (ROOT / DOCS / page).read_text()
    folder = posixpath.dirname(page)
    links = re.findall(r"^\| \[([^]]+)\]\(([^)#]+)\)", text, re.MULTILINE)
    return [{title: posixpath.normpath(posixpath.join(folder, target))} for title, target in links]


def slug(heading, _separator):
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


class Links(Treeprocessor):
    """Makes links of the checkout those of the site, for mkdocs to resolve, or the repository's."""

    page = None
    files = None

    def run(self, root):
        for element in root.iter():
            for attribute in ("href", "src"):
                if link := element.get(attribute):
                    element.set(attribute, self.resolve(link))

    def resolve(self, link):
        scheme, netloc, path, _, fragment = urlsplit(link)
        if scheme or netloc or not path:
            return link
        here = place(self.page.src_uri)
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        anchor = f"#{fragment}" if fragment else ""
        if self.files.get_file_from_path(uri(target)):
            return posixpath.relpath(uri(target), posixpath.dirname(self.page.src_uri) or ".") + anchor
        if target.startswith("..") or not (ROOT / target).exists():
            log.warning(f"{here}: the link to {link} leads nowhere")
            return link
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{target}{anchor}"


class LinksExtension(Extension):
    def extendMarkdown(self, md):
        # Before mkdocs' own, which has priority 0, and after all that makes links.
        md.treeprocessors.register(Links(md), "links-of-the-checkout", 1)


def on_config(config):
    included.clear()
    config["nav"] = list(entries(config["nav"]))
    config["repo_url"] = REPOSITORY
    config["mdx_configs"]["toc"] = {"slugify": slug, "permalink": "#", **config["mdx_configs"].get("toc", {})}
    config["markdown_extensions"].append(LinksExtension())
    return config


def on_files(files, config):
    for path in included:
        if not (ROOT / path).is_file():
            log.warning(f"mkdocs.yml: there is no {path}")
            continue
        files.append(File(path, str(ROOT), config["site_dir"], config["use_directory_urls"]))
    return files


def on_nav(nav, config, files):
    listed = {page.file.src_uri for page in nav.pages}
    for file in files.documentation_pages():
        if file.src_uri not in listed:
            log.warning(f"mkdocs.yml: {place(file.src_uri)} is not in the navigation")
    return nav


def on_pre_page(page, config, files):
    page.edit_url = f"{REPOSITORY}/blob/main/{place(page.file.src_uri)}"
    Links.page, Links.files = page.file, files
    return page


def on_post_page(output, page, config):
    return mended(output, config)


def on_post_template(output_content, template_name, config):
    return mended(output_content, config)


def mended(html, config):
    """The page with the theme's jQuery under the name that it has, without scripts that the theme lacks (for old browsers), and
    with groups of the navigation that lead to their first page: the theme's script takes all links to `#` for the current page."""
    there = {file.name for folder in config["theme"].dirs for file in (Path(folder) / "js").glob("*.js")}
    jquery = next((name for name in sorted(there) if name.startswith("jquery")), None)

    def script(found):
        name = jquery if found[2].startswith("jquery") else found[2]
        return f'<script src="{found[1]}{name}"{found[3]}></script>' if name in there else ""

    html = re.sub(r'<script src="([^":]*\bjs/)([\w.-]+)"([^>]*)></script>', script, html)
    return re.sub(r'href="#"(>[^<]*</a>\s*<ul[^>]*>\s*<li[^>]*>\s*<a [^>]*href="([^"]+)")', r'href="\2"\1', html)
