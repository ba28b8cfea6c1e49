#!/usr/bin/env bash
# Stands in for Keeper's installer in the tests: redeems the one-time token for a configuration and makes the user, the
# configuration and the systemd unit where Keeper's makes them. @URL@ is filled in by the server that hands it out.
set -e
umask 022

token=
while [ $# -gt 0 ]; do
    case $1 in
        --token) token=$2; shift 2 ;;
        --autoupdate) shift ;;
        *) echo "unknown argument" >&2; exit 2 ;;
    esac
done
# The test looks at whether the token could have been seen.
tr '\0' ' ' < /proc/$$/cmdline > /var/tmp/installer.cmdline

fetch() {
    python3 -c 'import sys, urllib.request as u; print(u.urlopen(u.Request(sys.argv[1], sys.stdin.buffer.read() or None)).read().decode())' "@URL@/$1"
}
if ! config=$(fetch redeem 2> /dev/null <<< "$token"); then
    echo "Error: the one-time token $token is invalid, or it was used before" >&2
    exit 1
fi

id keeper-gw > /dev/null 2>&1 || useradd --system --shell /usr/sbin/nologin --home-dir /etc/keeper-gateway keeper-gw
install -d -o keeper-gw -g keeper-gw -m 700 /etc/keeper-gateway
install -o keeper-gw -g keeper-gw -m 600 /dev/null /etc/keeper-gateway/gateway-config.json
printf '%s\n' "$config" > /etc/keeper-gateway/gateway-config.json

cat > /usr/local/bin/gateway << 'GATEWAY'
#!/bin/sh
test "$1 $2 $3" = "start --service --config-file" && test -r "$4" && exec sleep infinity
GATEWAY
chmod 755 /usr/local/bin/gateway
cat > /etc/systemd/system/keeper-gateway.service << 'UNIT'
[Unit]
Description=Keeper Gateway

[Service]
User=keeper-gw
ExecStart=/bin/bash -c "/usr/local/bin/gateway start --service --config-file /etc/keeper-gateway/gateway-config.json"
Restart=on-failure

[Install]
WantedBy=multi-user.target
UNIT
# The sandbox has a CA of its own, which the role is told of.
fetch ca.pem < /dev/null > /usr/local/share/sandbox-ca.pem
