#!/bin/sh
# Makes the files of this folder from plan.csv with LibreOffice Calc, without a window: see README.md.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
READ="CSV:44,34,76,1"

# calc FORMAT FILE FOLDER [FILTER]: FILE in another format, written into FOLDER.
calc() {
    soffice --headless --norestore "-env:UserInstallation=file://$work/profile" --convert-to "$1" --outdir "$3" ${4:+"--infilter=$4"} "$2" >/dev/null 2>&1
}
# saved FILE NAME SEPARATOR CHARSET: FILE saved as CSV under NAME; separator and charset by LibreOffice's numbers.
saved() {
    calc "csv:Text - txt - csv (StarCalc):$3,34,$4,1,,0,false,true,false" "$1" "$work/saved" "${5:-}"
    mv "$work/saved/$(basename "${1%.*}").csv" "$2"
}

saved plan.csv libreoffice.csv 44 76 "$READ"
saved plan.csv libreoffice-semicolon.csv 59 76 "$READ"
saved plan.csv libreoffice-tab-utf16.csv 9 65535 "$READ"
saved plan.csv libreoffice-windows-1252.csv 44 1 "$READ"
head -n 1 plan.csv > "$work/header.csv"
saved "$work/header.csv" libreoffice-header.csv 59 76 "$READ"
calc 'xlsx:Calc MS Excel 2007 XML' plan.csv "$work" "$READ"
saved "$work/plan.xlsx" xlsx.csv 44 76
calc ods plan.csv "$work" "$READ"
saved "$work/plan.ods" ods.csv 44 76

# Dates as programs show them elsewhere, and as the number that they are: the column has another format, saved again.
calc fods plan.csv "$work" "$READ"
python3 - "$work/plan.fods" "$work" <<'PYTHON'
import re, sys
from pathlib import Path

text = Path(sys.argv[1]).read_text()
style = re.compile(r'<number:date-style style:name="\w+">.*?</number:date-style>', re.DOTALL)
other = re.compile(r'data-style-name="N\d+"').sub('data-style-name="N900"', text)
shown = '<number:month/><number:text>/</number:text><number:day/><number:text>/</number:text><number:year/>'
shown += '<number:text> </number:text><number:hours/><number:text>:</number:text><number:minutes/>'
for name, language, country in (("us-dates", "en", "US"), ("german-dates", "de", "DE")):
    place = f'number:language="{language}" number:country="{country}"'
    new = f'<number:date-style style:name="N900" {place}>{shown}</number:date-style>'
    Path(sys.argv[2], f"{name}.fods").write_text(style.sub(new, other))
number = '<number:number number:decimal-places="6" number:min-integer-digits="1"/>'
new = f'<number:number-style style:name="N900">{number}</number:number-style>'
Path(sys.argv[2], "day-numbers.fods").write_text(style.sub(new, other))
PYTHON
saved "$work/us-dates.fods" us-dates.csv 44 76
saved "$work/german-dates.fods" german-dates.csv 59 76
saved "$work/day-numbers.fods" day-numbers.csv 44 76
