package hsmsign

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestATargetThatCannotWorkIsRefused(t *testing.T) {
	for _, target := range []string{
		"", "localhost:7443", "unix://", "unix:///", "unix://relative", "dns:///", "dns:///host", "dns:///:1",
		"dns:///host:0", "dns:///host:65536", "dns:///host:x", "dns:///host:7443", "unix:///" + strings.Repeat("x", 107),
	} {
		if _, err := Dial(t.Context(), target); !errors.Is(err, ErrConfiguration) {
			t.Errorf("%q: %v", target, err)
		}
	}
	if _, err := newEndpoint("dns:///[::1]:7443", &tls.Config{}); err != nil {
		t.Error(err)
	}
}

func TestAClientFileIsReadAsTheOtherClientsReadIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.toml")
	read := func(text string) (string, *TLSFiles, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readClientFile(path)
	}
	target, files, err := read(
		"endpoint = 'dns:///h:1'\nca = 'a.pem'\ncertificate = '/c.pem'\nkey = 'k.pem'\nserver_name = 'other'")
	wanted := TLSFiles{filepath.Join(filepath.Dir(path), "a.pem"), "/c.pem", filepath.Join(filepath.Dir(path), "k.pem"), "other"}
	if err != nil || target != "dns:///h:1" || *files != wanted {
		t.Errorf("%s %v %v", target, files, err)
	}
	for text, words := range map[string]string{
		"endpoint = 'unix:///x'\nendpont = 'y'": `unknown key "endpont"`,
		"endpoint = 1":                          "cannot be read",
		"endpoint = ''":                         "must be a string that is not empty",
		"ca = 'x'":                              "has no endpoint",
		"endpoint = 'dns:///h:1'\nca = 'x'":     "certificate, key missing beside ca",
		"endpoint = ":                           "cannot be read",
	} {
		if _, _, err := read(text); !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := FromFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrConfiguration) {
		t.Error(err)
	}
}
