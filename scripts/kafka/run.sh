#!/usr/bin/env bash
# run.sh DIR: runs one Apache Kafka node (KRaft, broker and controller in one JVM) on free loopback
# ports, with its data in DIR. It writes the address to DIR/bootstrap.servers, then becomes the JVM;
# SIGTERM stops it. Run again with the same DIR, it keeps its data and its address.
# DIR/secured.servers has a second address that requires TLS and SCRAM-SHA-512 (user pgsluice,
# password test-password). Its certificate is signed by DIR/ca.pem, and ACLs apply to it.
# The settings are for a temporary broker: nothing is replicated, groups start without delay, and
# clients may use session timeouts of one second and more.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../ports.sh
source "$here/../ports.sh"

dir=${1:?usage: run.sh DIR}
mkdir -p "$dir"
command -v java >/dev/null || { echo "run.sh: Java is missing; run scripts/install.sh" >&2; exit 3; }
lib=$("$here/fetch.sh")

java_options=(-Xms256m -Xmx768m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto
    -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.defaultLogLevel=warn)
if [ -s "$dir/bootstrap.servers" ]; then
    exec java "${java_options[@]}" -cp "$lib/*" kafka.Kafka "$dir/server.properties"
fi

broker=$(free_port)
controller=$(free_port)
while [ "$controller" = "$broker" ]; do controller=$(free_port); done
secured=$(free_port)
while [ "$secured" = "$broker" ] || [ "$secured" = "$controller" ]; do secured=$(free_port); done

# The CA and the broker's certificate. Their keys live only as long as DIR.
(
    cd "$dir"
    openssl req -x509 -newkey rsa:2048 -noenc -days 30 -subj /CN=authority -keyout ca.key -out ca.pem
    openssl req -newkey rsa:2048 -noenc -subj /CN=broker -keyout broker.key -out broker.csr
    openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
        -extfile <(echo "subjectAltName=IP:127.0.0.1") -out broker.pem
    cat broker.key broker.pem >broker.both.pem
) >"$dir/openssl.log" 2>&1 || { cat "$dir/openssl.log" >&2; exit 3; }

cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$broker,CONTROLLER://127.0.0.1:$controller,SECURED://127.0.0.1:$secured
advertised.listeners=PLAINTEXT://127.0.0.1:$broker,SECURED://127.0.0.1:$secured
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL
listener.name.secured.ssl.keystore.type=PEM
listener.name.secured.ssl.keystore.location=$dir/broker.both.pem
listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
inter.broker.listener.name=PLAINTEXT
# Resources without an ACL are open to everyone, and the PLAINTEXT listener may do everything.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
log.dirs=$dir/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
PROPERTIES

java "${java_options[@]}" -cp "$lib/*" kafka.tools.StorageTool \
    format --ignore-formatted -t cGdzbHVpY2UtdGVzdC1rZg -c "$dir/server.properties" \
    --add-scram 'SCRAM-SHA-512=[name=pgsluice,password=test-password]' >/dev/null
echo "127.0.0.1:$secured" >"$dir/secured.servers"
echo "127.0.0.1:$broker" >"$dir/bootstrap.servers"
exec java "${java_options[@]}" -cp "$lib/*" kafka.Kafka "$dir/server.properties"
