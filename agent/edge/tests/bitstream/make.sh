#!/usr/bin/env bash
# Makes the fixtures of the bitstream tests anew: short streams of synthetic patterns by real encoders, each with what
# an independent parser (ffmpeg's trace_headers) reads in its slice headers.
#
#   agent/edge/tests/bitstream/make.sh
#
# Needs Debian's ffmpeg, python3 and gstreamer1.0-plugins-bad (openh264enc). NAME.h264 or NAME.h265 is a byte stream with
# an access unit delimiter before each access unit; NAME.txt has a line for each access unit: slice type and quantiser
# parameter of each of its slices.
set -euo pipefail
cd "$(dirname "$0")"

# Moving shapes, a fade for weighted prediction, and noise.
pattern="testsrc2=size=96x64:rate=15,fade=in:0:20,noise=alls=4:allf=t"

# encode NAME.EXTENSION FRAMES ffmpeg-options ...
encode() {
    local name=$1 frames=$2
    shift 2
    ffmpeg -nostdin -v error -y -f lavfi -i "$pattern" -frames:v "$frames" "$@" "$name"
}

x264() { # NAME FRAMES X264-OPTIONS [ffmpeg-options ...]
    local name=$1 frames=$2 options=$3
    shift 3
    encode "$name.h264" "$frames" -pix_fmt yuv420p "$@" -c:v libx264 -threads 1 -x264-params "aud=1:$options"
}

x265() { # NAME FRAMES X265-OPTIONS [ffmpeg-options ...]
    local name=$1 frames=$2 options=$3
    shift 3
    encode "$name.h265" "$frames" -pix_fmt yuv420p "$@" -c:v libx265 \
        -x265-params "log-level=error:aud=1:repeat-headers=1:ctu=16:min-cu-size=8:$options"
}

openh264() { # NAME FRAMES
    local raw=$1.raw.h264
    gst-launch-1.0 -q videotestsrc pattern=ball num-buffers="$2" ! video/x-raw,format=I420,width=96,height=64,framerate=15/1 \
        ! openh264enc gop-size=6 rate-control=bitrate bitrate=60000 ! filesink location="$raw"
    ffmpeg -nostdin -v error -y -i "$raw" -c:v copy -bsf:v h264_metadata=aud=insert -f h264 "$1.h264"
    rm "$raw"
}

# The truth, from ffmpeg's own parser.
slices() {
    ffmpeg -nostdin -nostats -hide_banner -loglevel trace -i "$1" -c:v copy -bsf:v trace_headers -f null - 2>&1 |
        python3 -c '
import re, sys
letters = {"h264": "PBIPI", "h265": "BPI"}[sys.argv[1]]
quantisers, section, fields, units = {}, "", {}, []
def end_of_section():
    pps = fields.get("pps_pic_parameter_set_id", fields.get("pic_parameter_set_id"))
    pps = fields.get("slice_pic_parameter_set_id", pps)
    if section == "Picture Parameter Set" and pps is not None:
        quantisers[pps] = 26 + fields.get("pic_init_qp_minus26", fields.get("init_qp_minus26"))
    elif "slice_qp_delta" in fields:
        letter = letters[fields["slice_type"] % len(letters)]
        units[-1].append("%s%d" % (letter, quantisers[pps] + fields["slice_qp_delta"]))
for line in sys.stdin:
    line = re.match(r"\[trace_headers @ \w+\] (.*)", line)
    field = line and re.match(r"\d+ +(\S+) +[01]+ = (-?\d+)", line[1])
    if field:
        fields[field[1]] = int(field[2])
    elif line and not line[1].startswith("nal_unit_type:"):
        end_of_section()
        section, fields = line[1].strip(), {}
        if section.startswith("Packet"):
            units.append([])
end_of_section()
print("\n".join(" ".join(unit) for unit in units))' "${1##*.}"
}

fixtures() {
    x264 x264-constant-qp 10 "qp=30:ipratio=1:pbratio=1:bframes=2:keyint=5"
    x264 x264-crf-bframes-4slices 10 "crf=32:bframes=3:slices=4:weightp=2:weightb=1:keyint=8:b-pyramid=normal"
    x264 x264-weighted 12 "crf=34:bframes=0:weightp=2:ref=4:keyint=30:scenecut=0"
    x264 x264-interlaced 8 "crf=34:interlaced=1:bframes=2:slices=2:weightb=1"
    x264 x264-baseline-cavlc 10 "crf=34:keyint=5" -profile:v baseline
    x264 x264-scaling-lists 8 "crf=34:cqm=jvt:bframes=5:b-pyramid=strict:ref=5:b-adapt=0"
    x264 x264-444-10bit 6 "crf=36:bframes=2" -pix_fmt yuv444p10le
    x264 x264-monochrome 6 "crf=34" -pix_fmt gray
    x264 x264-intra-refresh 12 "crf=36:intra-refresh=1:keyint=6:bframes=0"
    x264 x264-open-gop 12 "crf=36:open-gop=1:keyint=6:bframes=2:b-adapt=0"
    x264 x264-cbr-filler 8 "bitrate=120:vbv-maxrate=120:vbv-bufsize=120:nal-hrd=cbr:qpmin=30:bframes=0"
    x265 x265-constant-qp 10 "qp=30:ipratio=1:pbratio=1:bframes=2:keyint=5"
    x265 x265-crf-slices 10 "crf=36:slices=2:bframes=3:keyint=8"
    x265 x265-weighted 12 "crf=36:weightp=1:weightb=1:bframes=2:ref=4"
    x265 x265-open-gop 12 "crf=36:open-gop=1:keyint=6:bframes=2"
    x265 x265-temporal-layers 10 "crf=36:temporal-layers=1:bframes=4:b-adapt=0"
    x265 x265-scaling-lists-444 6 "crf=36:scaling-list=default:no-sao=1:no-temporal-mvp=1" -pix_fmt yuv444p
    x265 x265-low-delay 10 "crf=36:bframes=0:no-open-gop=1:ref=3"
    openh264 openh264-bitrate 10
}

fixtures
for stream in *.h264 *.h265; do
    slices "$stream" >"${stream%.*}.txt"
done
