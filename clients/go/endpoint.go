package hsmsign

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	endpointForms = "an endpoint is unix:///path/to/socket or dns:///host:port"
	unixPathMax   = 107
)

// TLSFiles are PEM files for mutual TLS. They are read once, when a client is made.
type TLSFiles struct {
	CA, Certificate, Key string
	// ServerName is checked in the daemon's certificate instead of the host in the target; it may be empty.
	ServerName string
}

// endpoint is a daemon's address; tls is nil for a Unix socket.
type endpoint struct {
	target string
	tls    *tls.Config
}

func newEndpoint(target string, config *tls.Config) (endpoint, error) {
	if path, found := strings.CutPrefix(target, "unix://"); found && strings.HasPrefix(path, "/") && len(path) > 1 {
		if len(path) > unixPathMax {
			return endpoint{}, misconfigured(
				"the kernel takes no longer one; use a shorter folder",
				"the socket path in %q is longer than %d bytes", target, unixPathMax)
		}
		return endpoint{target: target}, nil
	}
	rest, found := strings.CutPrefix(target, "dns:///")
	if !found || rest == "" {
		return endpoint{}, misconfigured(endpointForms, "%q is not an endpoint", target)
	}
	colon := strings.LastIndex(rest, ":")
	if colon < 1 {
		return endpoint{}, misconfigured(endpointForms, "%q has no host and port", target)
	}
	if port, err := strconv.ParseUint(rest[colon+1:], 10, 16); err != nil || port == 0 {
		return endpoint{}, misconfigured(endpointForms, "%q has no host and port", target)
	}
	if config == nil {
		return endpoint{}, misconfigured(
			"pass WithTLSFiles or WithTLSConfig, or name ca, certificate and key in client.toml",
			"%q is reached over TLS, and no certificate was given", target)
	}
	return endpoint{target: target, tls: config}, nil
}

// load reads the files.
func (f TLSFiles) load() (*tls.Config, error) {
	authorities, err := readPEM(f.CA, "CA")
	if err != nil {
		return nil, err
	}
	certificate, err := readPEM(f.Certificate, "certificate")
	if err != nil {
		return nil, err
	}
	key, err := readPEM(f.Key, "key")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, misconfigured("they must be a pair", "the client's certificate %s and key %s cannot be used: %v",
			f.Certificate, f.Key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, misconfigured("it must hold a certificate", "the client's CA file %s has no certificate", f.CA)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: f.ServerName,
	}, nil
}

func readPEM(path, what string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, misconfigured("it is named in client.toml, or in TLSFiles", "cannot read the client's %s file: %v",
			what, err)
	}
	if !bytes.Contains(content, []byte("-----BEGIN ")) {
		return nil, misconfigured("it must hold a -----BEGIN line", "the client's %s file %s is not PEM", what, path)
	}
	return content, nil
}

// clientFile is client.toml, as docs/client.md has it. Pointers tell what is empty from what is not there.
type clientFile struct {
	Endpoint    *string `toml:"endpoint"`
	CA          *string `toml:"ca"`
	Certificate *string `toml:"certificate"`
	Key         *string `toml:"key"`
	ServerName  *string `toml:"server_name"`
}

// readClientFile reads a client file; paths in it are relative to it.
func readClientFile(path string) (string, *TLSFiles, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", nil, misconfigured("name another one", "cannot read the client file: %v", err)
	}
	var file clientFile
	decoder := toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) && len(strict.Errors) > 0 {
			return "", nil, misconfigured("known are: endpoint, ca, certificate, key, server_name",
				"%s has an unknown key %q", path, strings.Join(strict.Errors[0].Key(), "."))
		}
		return "", nil, misconfigured("see docs/client.md", "%s cannot be read: %v", path, err)
	}
	return file.check(path)
}

func (f clientFile) check(path string) (string, *TLSFiles, error) {
	text := map[string]string{}
	for name, value := range map[string]*string{
		"endpoint": f.Endpoint, "ca": f.CA, "certificate": f.Certificate, "key": f.Key, "server_name": f.ServerName,
	} {
		if value == nil {
			continue
		}
		if *value == "" {
			return "", nil, misconfigured(name+` = "..."`, "%q in %s must be a string that is not empty", name, path)
		}
		text[name] = *value
	}
	if text["endpoint"] == "" {
		return "", nil, misconfigured(endpointForms, "%s has no endpoint", path)
	}
	var given, missing []string
	for _, name := range []string{"ca", "certificate", "key"} {
		if text[name] == "" {
			missing = append(missing, name)
		} else {
			given = append(given, name)
		}
	}
	if len(given) == 0 {
		return text["endpoint"], nil, nil
	}
	if len(missing) > 0 {
		return "", nil, misconfigured("mutual TLS takes all three: ca, certificate, key", "%s: %s missing beside %s",
			path, strings.Join(missing, ", "), strings.Join(given, ", "))
	}
	beside := func(name string) string {
		if filepath.IsAbs(text[name]) {
			return text[name]
		}
		return filepath.Join(filepath.Dir(path), text[name])
	}
	return text["endpoint"], &TLSFiles{
		CA: beside("ca"), Certificate: beside("certificate"), Key: beside("key"), ServerName: text["server_name"],
	}, nil
}
