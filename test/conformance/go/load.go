package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const (
	dialers    = 4
	validators = 2
	audience   = "load"
)

// load keeps two workloads busy with each other, one at each of two agents, until SIGTERM: each calls the other over
// mutual TLS, every time with a new connection, and validates JWT-SVIDs that the other has just fetched. Each failure is
// an event of its own; the last event says how much there was.
func load(sockets [2]string, trustDomain string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var handshakes, validations, failures, updates atomic.Int64
	failed := func(what string, err error) {
		if ctx.Err() != nil {
			return
		}
		failures.Add(1)
		say(map[string]any{"event": "failure", "what": what, "message": err.Error(), "at": time.Now().UTC()})
	}
	member := tlsconfig.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString(trustDomain))
	var x509 [2]*workloadapi.X509Source
	var jwts [2]*workloadapi.JWTSource
	for i, socket := range sockets {
		options := workloadapi.WithClientOptions(workloadapi.WithAddr("unix://" + socket))
		var err error
		if x509[i], err = workloadapi.NewX509Source(ctx, options); err != nil {
			fail(err)
		}
		defer x509[i].Close()
		if jwts[i], err = workloadapi.NewJWTSource(ctx, options); err != nil {
			fail(err)
		}
		defer jwts[i].Close()
	}
	var work sync.WaitGroup
	spawn := func(task func()) {
		work.Add(1)
		go func() {
			defer work.Done()
			task()
		}()
	}
	for i := range sockets {
		listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(x509[i], x509[i], member))
		if err != nil {
			fail(err)
		}
		defer listener.Close()
		go serve(listener)
		client := tlsconfig.MTLSClientConfig(x509[1-i], x509[1-i], member)
		for range dialers {
			spawn(func() {
				for ctx.Err() == nil {
					if err := call(ctx, listener.Addr().String(), client); err != nil {
						failed("handshake", err)
					} else {
						handshakes.Add(1)
					}
				}
			})
		}
		for range validators {
			spawn(func() {
				for ctx.Err() == nil {
					if err := validate(ctx, jwts[i], jwts[1-i]); err != nil {
						failed("validation", err)
					} else {
						validations.Add(1)
					}
				}
			})
		}
		spawn(func() {
			for updated := x509[i].Updated(); ; {
				select {
				case <-updated:
					updates.Add(1)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	say(map[string]any{"event": "running"})
	work.Wait()
	say(map[string]any{
		"event": "summary", "handshakes": handshakes.Load(), "validations": validations.Load(),
		"failures": failures.Load(), "updates": updates.Load(),
	})
}

// serve greets every caller whose certificate it accepts.
func serve(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			_, _ = io.WriteString(connection, "hello\n")
		}()
	}
}

func call(ctx context.Context, address string, config *tls.Config) error {
	dialer := tls.Dialer{Config: config}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	// With TLS 1.3 the client is done before the server has judged it: only an answer says that it was accepted.
	greeting, err := io.ReadAll(connection)
	if err == nil && string(greeting) != "hello\n" {
		err = fmt.Errorf("the server said %q", greeting)
	}
	return err
}

func validate(ctx context.Context, from, at *workloadapi.JWTSource) error {
	svid, err := from.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	_, err = jwtsvid.ParseAndValidate(svid.Marshal(), at, []string{audience})
	return err
}
