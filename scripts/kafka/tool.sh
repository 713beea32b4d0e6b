#!/usr/bin/env bash
# tool.sh NAME ARGUMENT...: runs one of Kafka's own command line tools from the jars that fetch.sh
# downloads. NAME is as in kafka-NAME.sh of Kafka's distribution.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${1:-} in
topics) class=org.apache.kafka.tools.TopicCommand ;;
console-producer) class=org.apache.kafka.tools.ConsoleProducer ;;
console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
consumer-groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
get-offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
*)
    echo "usage: tool.sh topics|console-producer|console-consumer|consumer-groups|get-offsets ARGUMENT..." >&2
    exit 2
    ;;
esac
shift
lib=$("$here/fetch.sh")
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
    -cp "$lib/*" "$class" "$@"
