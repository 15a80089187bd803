package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func readCertificates(file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, certificate)
	}
	return found, nil
}

func verifyOne(directory string, at time.Time) (string, error) {
	chain, err := readCertificates(filepath.Join(directory, "chain.pem"))
	if err != nil {
		return "", err
	}
	anchors, err := readCertificates(filepath.Join(directory, "anchor.pem"))
	if err != nil {
		return "", err
	}
	bundle := x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString("example.org"), anchors)
	id, _, err := x509svid.Verify(chain, bundle, x509svid.WithTime(at))
	return id.String(), err
}

// Verifies chain.pem against anchor.pem in each directory of `root`, at a Unix time.
func verifyEach(root string, seconds string) {
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		fail(err)
	}
	directories, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		fail(err)
	}
	for _, directory := range directories {
		id, err := verifyOne(directory, time.Unix(unix, 0))
		event := map[string]any{"event": "verified", "case": filepath.Base(directory), "id": id, "error": ""}
		if err != nil {
			event["error"] = fmt.Sprint(err)
		}
		say(event)
	}
}
