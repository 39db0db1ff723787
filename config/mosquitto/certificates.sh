#!/usr/bin/env bash
# Certificates for brokers, boxes, consoles and bridges. Needs openssl 3, nothing else.
#
#   certificates.sh FOLDER start                         make the four authorities
#   certificates.sh FOLDER broker NAME [NAME...]         a broker; NAME is a host name or an address of it
#   certificates.sh FOLDER box DISTRICT/TOWNSHIP/VILLAGE/BOX
#   certificates.sh FOLDER console BRANCH STATION        BRANCH is DISTRICT or DISTRICT/TOWNSHIP, STATION any name
#   certificates.sh FOLDER bridge DISTRICT/TOWNSHIP      a township's broker towards its district's
#   certificates.sh FOLDER revoke FILE                   one of the certificates in FOLDER
#   certificates.sh FOLDER list                          what was issued, until when, and what was revoked
#
# FOLDER is a secret: whoever has it can be any box. Keep it on an encrypted disk that is not a broker's. In it:
#
#   brokers.pem boxes.pem consoles.pem bridges.pem       who vouches for whom; these are public
#   boxes.crl.pem consoles.crl.pem bridges.crl.pem       what was revoked; also public
#   broker/ box/ console/ bridge/                        certificates NAME.pem and keys NAME.key.pem
#   authorities/                                         the authorities' own keys and records
#
# Each kind has an authority of its own, and each listener of a broker believes one of them: a stolen box cannot pass
# for a console, whatever its certificate is named. The common name is the place in the tree, because mosquitto's
# access rules can only use a name as it is: lan-xi/yun-shan/wang-cun/box-1 for a box, lan-xi/yun-shan for a township.
#
# Nothing is ever overwritten: to replace a certificate, revoke it and issue it again.
set -euo pipefail
export LC_ALL=C # so that [a-z] is what it says
umask 077

AUTHORITY_DAYS=7300 # also of the lists: one that has expired locks everybody out
DAYS=3650           # a box that nobody can visit should not stop because of a date

fail() {
    printf 'certificates: %s\n' "$*" >&2
    exit 1
}

usage() {
    sed -n '2,/^# FOLDER/{/^# FOLDER/!s/^# \{0,1\}//p}' "$0" >&2
    exit 64
}

# Runs openssl, which is silent unless it fails.
quietly() {
    "$@" 2>"$scratch/errors" || fail "$1 $2 failed: $(tail -n 3 "$scratch/errors")"
}

# a_path TEXT LEAST MOST: so many names of 1 to 16 of a-z, 0-9 and "-", joined by "/".
a_path() {
    local name="[a-z0-9-]{1,16}"
    [[ $1 =~ ^$name(/$name){$(($2 - 1)),$(($3 - 1))}$ ]] ||
        fail "\"$1\" is no place in the tree: names of 1 to 16 of a-z, 0-9 and \"-\", joined by \"/\""
    # X.509 allows no longer common name (ub-common-name), and readers differ in what they do with one.
    [ ${#1} -le 64 ] || fail "\"$1\" has ${#1} characters; a certificate has room for 64: use shorter names"
}

# The plural is the authority, the singular is what it vouches for.
authority_of() {
    case "$1" in
        broker | box | console | bridge) ;;
        *) fail "$1 is neither broker, box, console nor bridge" ;;
    esac
    [ "$1" = box ] && echo boxes || echo "${1}s"
}

start() {
    local name home
    [ ! -e authorities ] || fail "there are authorities in $folder already"
    for name in brokers boxes consoles bridges; do
        home="authorities/$name"
        mkdir -p "$home/issued" "$home/revoked"
        : >"$home/index"
        echo 01 >"$home/list-number"
        cat >"$home/openssl.cnf" <<END
[ca]
default_ca = authority
[authority]
certificate = $name.pem
private_key = authorities/$name/key.pem
new_certs_dir = authorities/$name/issued
database = authorities/$name/index
crlnumber = authorities/$name/list-number
rand_serial = yes
unique_subject = no
default_md = sha256
default_crl_days = $AUTHORITY_DAYS
policy = policy
[policy]
commonName = supplied
END
        quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$home/key.pem" \
            -out "$name.pem" -days "$AUTHORITY_DAYS" -subj "/CN=Sharp Eyes $name" \
            -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign
        [ "$name" = brokers ] || write_list "$name"
    done
    echo "made four authorities in $folder"
}

# Without a list, even an empty one, mosquitto lets nobody in.
write_list() {
    quietly openssl ca -config "authorities/$1/openssl.cnf" -gencrl -out "$scratch/list"
    mv "$scratch/list" "$1.crl.pem"
}

# issue KIND COMMON-NAME FILE USAGE [SUBJECT-ALTERNATIVE-NAMES]
issue() {
    local kind=$1 name=$2 file=$1/$3 use=$4 others=${5:-} authority
    authority=$(authority_of "$kind")
    [ ! -e "$file.pem" ] || fail "$folder/$file.pem is there already: revoke it first if it has to be replaced"
    [ ! -e "$file.key.pem" ] || fail "$folder/$file.key.pem is there without its certificate"
    mkdir -p "$kind"
    quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$scratch/key" \
        -out "$scratch/request" -subj "/CN=${name//\//\\/}"
    {
        echo "basicConstraints = critical,CA:FALSE"
        echo "keyUsage = critical,digitalSignature"
        echo "extendedKeyUsage = $use"
        echo "subjectKeyIdentifier = hash"
        echo "authorityKeyIdentifier = keyid"
        [ -z "$others" ] || echo "subjectAltName = $others"
    } >"$scratch/extensions"
    # From yesterday on: a box whose clock is a few hours late shall not be locked out on its first day.
    quietly openssl ca -batch -config "authorities/$authority/openssl.cnf" -notext -in "$scratch/request" \
        -out "$scratch/certificate" -days "$DAYS" -startdate "$(date -u -d yesterday +%Y%m%d%H%M%SZ)" \
        -extfile "$scratch/extensions"
    mv "$scratch/key" "$file.key.pem"
    mv "$scratch/certificate" "$file.pem"
    echo "issued $folder/$file.pem with $folder/$file.key.pem"
}

broker() {
    local name others=""
    [ $# -ge 1 ] || usage
    for name in "$@"; do
        [[ $name =~ ^[A-Za-z0-9.:-]{1,64}$ ]] || fail "\"$name\" is neither a host name nor an address"
        if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then others+=",IP:$name"; else others+=",DNS:$name"; fi
    done
    issue broker "$1" "$1" serverAuth "${others#,}"
}

box() {
    [ $# = 1 ] || usage
    a_path "$1" 4 4
    issue box "$1" "${1//\//.}" clientAuth
}

console() {
    [ $# = 2 ] || usage
    a_path "$1" 1 2
    a_path "$2" 1 1
    issue console "$1" "${1//\//.}.$2" clientAuth
}

bridge() {
    [ $# = 1 ] || usage
    a_path "$1" 2 2
    issue bridge "$1" "${1//\//.}" clientAuth
}

revoke() {
    local file kind name authority serial
    [ $# = 1 ] || usage
    # Given as a path from where the maintainer stands, or from within the folder.
    file=$(realpath -s --relative-to=. "$1")
    [ -f "$file" ] || file=$(cd "$from" && realpath -s --relative-to="$folder" "$1")
    [[ $file =~ ^(box|console|bridge)/([^/]+)\.pem$ && $file != *.key.pem && -f $file ]] ||
        fail "$1 is no certificate of a box, a console or a bridge in $folder"
    kind=${BASH_REMATCH[1]} name=${BASH_REMATCH[2]}
    authority=$(authority_of "$kind")
    serial=$(openssl x509 -in "$file" -noout -serial | cut -d = -f 2)
    quietly openssl ca -config "authorities/$authority/openssl.cnf" -revoke "$file"
    write_list "$authority"
    mv "$file" "authorities/$authority/revoked/$name.$serial.pem"
    rm "$kind/$name.key.pem"
    echo "revoked $name: now copy $folder/$authority.crl.pem to every broker and restart mosquitto there;"
    echo "a reload is enough where nobody is connected with this certificate, for it refuses new connections only"
}

list() {
    local name
    [ $# = 0 ] || usage
    for name in brokers boxes consoles bridges; do
        # The index of openssl: status, end, revocation, serial number, file, subject; dates as YYMMDDHHMMSSZ.
        awk -F '\t' -v kind="$name" '{
            state = $1 == "R" ? "revoked" : "until 20" substr($2, 1, 2) "-" substr($2, 3, 2) "-" substr($2, 5, 2)
            sub("^/CN=", "", $6); gsub("\\\\", "", $6)
            printf "%-9s %-18s %-40s %s\n", kind, state, $6, $4
        }' "authorities/$name/index"
    done
}

[ $# -ge 2 ] || usage
command=$2
case "$command" in start | broker | box | console | bridge | revoke | list) ;; *) usage ;; esac
from=$PWD
[ "$command" != start ] || mkdir -p "$1"
cd "$1"
folder=$PWD
[ "$command" = start ] || [ -d authorities ] || fail "there are no authorities in $folder: begin with start"
shift 2
exec 9>.lock
flock -n 9 || fail "somebody else is at work in $folder" # openssl's records bear one writer only
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$command" "$@"
