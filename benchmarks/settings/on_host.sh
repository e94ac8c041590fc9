# shellcheck shell=bash
# What the changes of changes.yml are written with. It runs on the host, as root.
set -euo pipefail
app=/opt/mlflow/app/mlops_app.py

sql() { (cd / && runuser -u postgres -- psql --quiet --no-psqlrc --dbname=mlflow --set=ON_ERROR_STOP=1 --output=/dev/null "${@/#/--command=}"); }

# set_to NAME=VALUE…: settings of PostgreSQL.
set_to() {
  local each
  for each in "$@"; do sql "ALTER SYSTEM SET ${each%%=*} = '${each#*=}'"; done
}

# servers_own NAME…: settings that are left to PostgreSQL.
servers_own() {
  local name value
  for name in "$@"; do
    value=$(cd / && runuser -u postgres -- psql --no-psqlrc -AtXc "SELECT boot_val FROM pg_settings WHERE name = '$name'")
    set_to "$name=$value"
  done
}

# environment NAME=VALUE…: of MLflow. The last file that systemd reads wins.
environment() {
  printf '%s\n' "$@" > /etc/mlflow/tried.env
  mkdir -p /etc/systemd/system/mlflow.service.d
  printf '[Service]\nEnvironmentFile=/etc/mlflow/tried.env\n' > /etc/systemd/system/mlflow.service.d/tried.conf
}

# instances {tcp|unix} NUMBER: so many units with one worker each, at addresses of their own, instead of one unit with them all.
instances() {
  local kind=$1 number unit options
  options=$(sed -n 's/^MLFLOW_UVICORN_OPTS="\(.*\)"$/\1/p' /etc/mlflow/mlflow.env)
  : > /root/units
  : > /etc/mlflow-gateway/backends.conf
  for number in $(seq "$2"); do
    unit=mlflow-$number
    sed '/^ExecStartPost=/d' /etc/systemd/system/mlflow.service > "/etc/systemd/system/$unit.service"
    mkdir -p "/etc/systemd/system/$unit.service.d"
    printf '[Service]\nEnvironmentFile=/etc/mlflow/%s.env\nRuntimeDirectory=%s\nRuntimeDirectoryMode=0755\n' "$unit" "$unit" > "/etc/systemd/system/$unit.service.d/own.conf"
    printf 'MLFLOW_WORKERS=1\nMLFLOW_PORT=%s\n' $((5000 + number)) > "/etc/mlflow/$unit.env"
    if [ "$kind" = unix ]; then
      echo "MLFLOW_UVICORN_OPTS=\"$options --uds /run/$unit/socket\"" >> "/etc/mlflow/$unit.env"
      echo "server unix:/run/$unit/socket;" >> /etc/mlflow-gateway/backends.conf
    else
      echo "server 127.0.0.1:$((5000 + number));" >> /etc/mlflow-gateway/backends.conf
    fi
    echo "$unit" >> /root/units
  done
}

# changed PERCENT: so many of the latest metrics have been updated since their last vacuum, and none runs.
changed() {
  set_to autovacuum=off
  echo "UPDATE latest_metrics SET value = value * 1.000001, step = step + 1 WHERE abs(hashtext(key || run_uuid)) % 100 < $1" > /root/later
}

# As site.yml left it.
reset() {
  if [ ! -e /root/backends.conf ]; then
    cp /etc/mlflow-gateway/backends.conf "$app" /etc/mlflow/basic_auth.ini /root/
    echo mlflow > /root/units
  fi
  xargs systemctl stop < /root/units
  sql "ALTER SYSTEM RESET ALL"
  rm -rf /root/later /etc/systemd/system/mlflow.service.d /etc/systemd/system/mlflow-[0-9].service{,.d} /etc/mlflow/{tried,mlflow-*}.env
  # What was there keeps owner and mode.
  cat /root/backends.conf > /etc/mlflow-gateway/backends.conf
  cat /root/mlops_app.py > "$app"
  cat /root/basic_auth.ini > /etc/mlflow/basic_auth.ini
  echo mlflow > /root/units
}

# The same amount of history for everybody, and PostgreSQL and the gateway with what is on the disk now.
prepare() {
  systemctl daemon-reload
  systemctl restart "$(systemctl list-units --plain --no-legend 'postgresql@*' | cut -d' ' -f1)" mlflow-gateway
  sql "TRUNCATE metrics" "DELETE FROM latest_metrics WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE status = 'RUNNING')" "VACUUM (FULL, ANALYZE) latest_metrics" VACUUM CHECKPOINT
  if [ -e /root/later ]; then sql "$(cat /root/later)" "ANALYZE latest_metrics" CHECKPOINT; fi
}
