#!/usr/bin/env bash
# Sets the tables of a results folder in one PDF, as a paper would: one table a page, with its caption.
#
#   scripts/tables-to-pdf.sh results/sweep main            # tables/main.tex   -> results/sweep/tables.pdf
#   scripts/tables-to-pdf.sh results/structure             # all tables of `[[table]]` blocks
#
# Needs pdflatex and booktabs: `apt install texlive-latex-recommended` on Debian.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: $0 RESULTS [TABLE...]" >&2; exit 2; }
command -v pdflatex > /dev/null || { echo "pdflatex is not found: install texlive-latex-recommended" >&2; exit 3; }
folder=${1%/}
shift
if [ $# -eq 0 ]; then
    # What `[[table]]` blocks made says so in its first line.
    mapfile -t names < <(grep -l -m1 '^% made by sparsify-exp from `\[\[table\]\]`' "$folder"/tables/*.tex | xargs -r -n1 basename -s .tex)
else
    names=("$@")
fi
[ ${#names[@]} -gt 0 ] || { echo "no table of a \`[[table]]\` block in $folder/tables" >&2; exit 3; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
    echo '\documentclass{article}'
    echo '\usepackage[utf8]{inputenc}\usepackage{booktabs}\usepackage{graphicx}'
    echo '\usepackage[margin=2cm]{geometry}\pagestyle{empty}\newsavebox{\pivotbox}\begin{document}'
    for name in "${names[@]}"; do
        cp "$folder/tables/$name.tex" "$work/$name.tex"
        # The caption is the third line, a comment.
        caption=$(sed -n '3s/^% //p' "$work/$name.tex")
        # A table that is wider than the page is made to fit; others stay at their size.
        echo "\\begin{table}[p]\\centering\\caption{$caption}\\medskip"
        echo "\\savebox{\\pivotbox}{\\input{$name.tex}}"
        echo '\ifdim\wd\pivotbox>\linewidth\resizebox{\linewidth}{!}{\usebox{\pivotbox}}\else\usebox{\pivotbox}\fi'
        echo '\end{table}\clearpage'
    done
    echo '\end{document}'
} > "$work/tables.tex"
(cd "$work" && pdflatex -interaction=nonstopmode -halt-on-error tables.tex > log.txt) || { tail -30 "$work/log.txt" >&2; exit 1; }
mv "$work/tables.pdf" "$folder/tables.pdf"
echo "$folder/tables.pdf"
