#!/usr/bin/env bash
# Records the traces anew: clips of ../shared/data/videos, encoded as cameras do, as a line of numbers for each access unit.
#
#   agent/edge/tests/traces/make.sh [NAME ... | CLIP.truth ...]
#
# Needs Debian's ffmpeg, and the binary `trace` (cargo build --bin trace), or another by TRACE=; for truth `make setup`, too.
set -euo pipefail
cd "$(dirname "$0")"
repository=$(cd ../../../.. && pwd)
trace=${TRACE:-$repository/target/debug/trace}
videos=$repository/../shared/data/videos
wanted=" $* "
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

room=intel-one-by-one-person-detection

# record NAME CLIP WIDTH FPS NOISE ffmpeg-encoder-options ...: the noise of a sensor in ffmpeg's steps, over the scaled
# picture; superfast and no scene cuts, as a camera's chip has neither time nor look-ahead.
record() {
    local name=$1 clip=$2 width=$3 fps=$4 noise=$5 extension=h264
    shift 5
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
    case "$*" in *libx265*) extension=h265 ;; esac
    local stream=$scratch/$name.$extension
    nice -n 5 ffmpeg -nostdin -v error -y -i "$videos/$clip.mp4" \
        -vf "fps=$fps,scale=$width:-2,noise=c0s=$noise:c0f=t,format=yuv420p" -preset superfast "$@" "$stream"
    "$trace" "$stream" >"$name.trace.new"
    mv "$name.trace.new" "$name.trace"
    echo "$name: $(wc -l <"$name.trace") access units, $(wc -c <"$name.trace") bytes"
    rm "$stream"
}

# truth NAME CLIP SIZE: what a YOLOX-Nano sees in the clip itself.
truth() {
    [ "$wanted" = "  " ] || [[ $wanted == *" $1.truth "* ]] || return 0
    local bundle=$scratch/model labels
    labels=$(printf '"%s", ' person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant \
        stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag \
        tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard \
        tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog \
        pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone \
        microwave oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush)
    mkdir -p "$bundle"
    ln -sf "$videos/../models/yolox_nano_bigisland.onnx" "$bundle/model.onnx"
    cat >"$bundle/manifest.toml" <<END
name = "yolox-nano"
version = "0.1.1"
labels = [${labels//_/ }]
licence = "Apache-2.0"
training_data = ["COCO 2017"]
[input]
colour = "bgr"
[thresholds]
default = 0.3
END
    nice -n 5 ffmpeg -nostdin -v error -i "$videos/$2.mp4" -vf fps=4 -pix_fmt yuv420p -f rawvideo - |
        nice -n 5 "$trace" --truth "$3" --model "$bundle" >"$1.truth.new"
    mv "$1.truth.new" "$1.truth"
    echo "$1.truth: $(wc -l <"$1.truth") seconds"
}

x264() { # KEYFRAME-DISTANCE RATE-OPTIONS
    echo "-c:v libx264 -x264-params aud=1:scenecut=0:keyint=$1:min-keyint=$1:bframes=0:$2"
}
x265() {
    echo "-c:v libx265 -x265-params log-level=error:repeat-headers=1:aud=1:scenecut=0:open-gop=0:keyint=$1:min-keyint=$1:bframes=0:$2"
}
rate() { echo "bitrate=$1:vbv-maxrate=$1:vbv-bufsize=$(($1 * 6 / 10))"; }

# shellcheck disable=SC2046 # options are words
all() {
    record room-360p-rate $room 640 10 2 $(x264 20 "$(rate 600)")
    record room-360p-quality $room 640 10 2 $(x264 20 crf=26)
    record room-1080p-rate $room 1920 10 4 $(x264 20 "$(rate 3000)")
    record room-360p-rate-noisy $room 640 10 4 $(x264 20 "$(rate 600)")
    record room-360p-clean $room 640 10 0 $(x264 20 crf=26)
    record room-360p-long-gop $room 640 10 2 $(x264 100 "$(rate 600)")
    record room-360p-padded-4slices $room 640 10 2 $(x264 10 "$(rate 600):nal-hrd=cbr:slices=4")
    record room-360p-bframes $room 640 10 2 $(x264 20 "$(rate 600):bframes=2:b-adapt=0")
    record room-360p-intra-only $room 640 10 2 $(x264 1 "$(rate 1500)")
    record room-360p-h265-rate $room 640 10 2 $(x265 20 "$(rate 400)")
    record room-360p-h265-quality $room 640 10 2 $(x265 20 crf=28)
    record pavement-360p-rate ahmetozlu-pedestrian3 640 15 2 $(x264 30 "$(rate 600)")
    record road-360p-rate ahmetozlu-vehicle3 640 12 2 $(x264 24 "$(rate 600)")
    record cars-360p-quality intel-car-detection 640 12 2 $(x264 24 crf=26)
    record night-infrared-rate frigate-motion1 320 6 6 $(x264 12 "$(rate 150)")
    record square-flicker-rate roboflow-example 426 15 2 $(x264 30 "$(rate 400)")
    record house-fire-rate furg-house6 426 15 2 $(x264 30 "$(rate 400)")
    record room-1080p-quality $room 1920 10 4 $(x264 20 crf=26)
    record room-1080p-long-gop $room 1920 10 4 $(x264 100 "$(rate 3000)")
}

truths() {
    truth room $room 768x432
    truth pavement ahmetozlu-pedestrian3 626x360
    truth road ahmetozlu-vehicle3 640x352
    truth cars intel-car-detection 768x432
    truth night frigate-motion1 178x100
    truth square roboflow-example 426x240
}

truths
all
