// Package otel checks deploy/otel/collector.yaml with the collector's own code: its Kafka receiver takes the settings, its transform
// processor runs the statements on all samples, and an exporter's queue hands back what became of a record.
package otel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/transformprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/kafkareceiver"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/xconfmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.yaml.in/yaml/v3"
)

const root = "../../../"

func TestTheReceiverTakesTheSettings(t *testing.T) {
	settings := section(t, "receivers", "kafka")
	if err := valid(settings, kafkareceiver.NewFactory().CreateDefaultConfig()); err != nil {
		t.Fatal(err)
	}
	// docs/downstream.md says so, and warns for that reason. When this fails, the receiver has learnt it: set it and say so.
	settings["isolation_level"] = "read_committed"
	err := valid(settings, kafkareceiver.NewFactory().CreateDefaultConfig())
	if err == nil || !strings.Contains(err.Error(), "invalid keys: isolation_level") {
		t.Fatalf("the receiver reads committed now? %v", err)
	}
}

func TestTheStatementsFindTimeAndIdOfEverySample(t *testing.T) {
	factory := transformprocessor.NewFactory()
	config := factory.CreateDefaultConfig()
	if err := valid(section(t, "processors", "transform"), config); err != nil {
		t.Fatal(err)
	}
	sink := new(consumertest.LogsSink)
	settings := processortest.NewNopSettings(factory.Type())
	processor, err := factory.CreateLogs(t.Context(), settings, config, sink)
	if err != nil {
		t.Fatal(err)
	}
	lines, logs := samples(t), plog.NewLogs()
	records := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	for _, line := range lines {
		records.AppendEmpty().Body().SetStr(line)
	}
	if err := processor.ConsumeLogs(t.Context(), logs); err != nil {
		t.Fatal(err)
	}
	came, timed, named := sink.AllLogs()[0].ResourceLogs().At(0).ScopeLogs().At(0).LogRecords(), 0, 0
	if came.Len() != len(lines) {
		t.Fatalf("%d of %d records came through", came.Len(), len(lines))
	}
	for i, line := range lines {
		record := came.At(i)
		if record.Body().Str() != line {
			t.Errorf("the body is another: %s", line)
		}
		// What is no object, or has a number beyond every double, has neither time nor id: the processor parses it as we do.
		var facts map[string]any
		if json.Unmarshal([]byte(line), &facts) != nil {
			facts = nil
		}
		created, _ := facts["CreationTime"].(string)
		if len(created) >= 19 {
			want, err := time.Parse("2006-01-02T15:04:05", created[:19])
			if err == nil && !record.Timestamp().AsTime().Equal(want) {
				t.Errorf("%s for %s", record.Timestamp(), line)
			}
			timed++
		}
		id, _ := facts["Id"].(string)
		want := ""
		if len(id) == 36 {
			want = strings.ToLower(id)
			named++
		}
		got, _ := record.Attributes().AsRaw()["elasticsearch.document_id"].(string)
		if got != want {
			t.Errorf("the document is called %q, not %q: %s", got, want, line)
		}
	}
	if timed < 80 || named < 80 {
		t.Errorf("only %d records with a time and %d with an id were tried", timed, named)
	}
}

// The receiver commits the offset of what went well. So the queue before the exporter must say how it went. The exporter is in no
// registry; each exporter has this queue, and one that refuses everything stands in for it.
func TestTheQueueHandsBackWhatBecameOfARecord(t *testing.T) {
	type config struct {
		Queue configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`
	}
	defaults := config{configoptional.Some(exporterhelper.NewDefaultQueueConfig())}
	if err := refused(t, defaults.Queue); err != nil {
		t.Fatalf("this test could not fail: %v", err)
	}
	shipped, queue := defaults, section(t, "exporters", "elasticsearch")["sending_queue"]
	if err := valid(map[string]any{"sending_queue": queue}, &shipped); err != nil {
		t.Fatal(err)
	}
	if err := refused(t, shipped.Queue); !errors.Is(err, errRefused) {
		t.Fatalf("the receiver would commit the offset of a record that was refused: %v", err)
	}
	if batch := shipped.Queue.Get().Batch.Get(); batch == nil || batch.MinSize != 0 {
		t.Fatalf("each record waits for others, which do not come: %+v", batch)
	}
}

var errRefused = errors.New("refused")

// What a receiver hears of a record that the exporter behind this queue refuses.
func refused(t *testing.T, queue configoptional.Optional[exporterhelper.QueueBatchConfig]) error {
	settings := exporter.Settings{
		ID:                component.MustNewID("elasticsearch"),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
	}
	refuse := func(context.Context, plog.Logs) error { return errRefused }
	logs, err := exporterhelper.NewLogs(t.Context(), settings, struct{}{}, refuse, exporterhelper.WithQueue(queue))
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	record := plog.NewLogs()
	record.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr("{}")
	heard := logs.ConsumeLogs(t.Context(), record)
	if err := logs.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	return heard
}

func section(t *testing.T, kind, name string) map[string]any {
	text, err := os.ReadFile(root + "deploy/otel/collector.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]any
	if err := yaml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all[kind][name].(map[string]any)
}

// What the collector does with a part of its settings: unknown keys are refused.
func valid(settings map[string]any, config component.Config) error {
	if err := confmap.NewFromStringMap(settings).Unmarshal(config); err != nil {
		return err
	}
	return xconfmap.Validate(config)
}

func samples(t *testing.T) []string {
	files, _ := filepath.Glob(root + "docs/api/samples/*.jsonl")
	var lines []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
			lines = append(lines, string(line))
		}
	}
	return lines
}
