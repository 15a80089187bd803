// Drives the Workload API with go-spiffe, unmodified, and says what it saw as one JSON line for each event.
//
//	client x509 SOCKET            one X.509 context
//	client jwt SOCKET AUDIENCE    one JWT-SVID, validated by the JWT source
//	client watch SOCKET COUNT     X.509 contexts until COUNT have come
//	client serve SOCKET ID        a mutual TLS server for the peer ID; prints its address, then each peer
//	client call SOCKET ADDRESS ID mutual TLS to the server, which must be ID
//	client load SOCKET SOCKET TD  mutual TLS and JWT-SVIDs between two agents of a trust domain, until SIGTERM
//	client verify DIRECTORY TIME  chain.pem against anchor.pem in each directory of it
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

func say(event map[string]any) {
	line, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	say(map[string]any{"event": "error", "message": err.Error(), "code": status.Code(err).String()})
	os.Exit(1)
}

type watcher struct {
	left int
	done context.CancelFunc
}

func describe(x *workloadapi.X509Context) map[string]any {
	svids := []map[string]any{}
	for _, svid := range x.SVIDs {
		leaf := svid.Certificates[0]
		svids = append(svids, map[string]any{
			"id": svid.ID.String(), "hint": svid.Hint, "serial": leaf.SerialNumber.String(),
			"notAfter": leaf.NotAfter.Unix(), "chain": len(svid.Certificates),
		})
	}
	roots := map[string]int{}
	for _, bundle := range x.Bundles.Bundles() {
		roots[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return map[string]any{"event": "x509", "svids": svids, "roots": roots}
}

func (w *watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	say(describe(x))
	if w.left--; w.left == 0 {
		w.done()
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	if status.Code(err).String() != "Canceled" {
		say(map[string]any{"event": "watch-error", "code": status.Code(err).String(), "message": err.Error()})
	}
}

func main() {
	if os.Args[1] == "load" {
		load([2]string{os.Args[2], os.Args[3]}, os.Args[4])
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	socket := workloadapi.WithAddr("unix://" + os.Args[2])
	switch os.Args[1] {
	case "verify":
		verifyEach(os.Args[2], os.Args[3])
	case "x509":
		x, err := workloadapi.FetchX509Context(ctx, socket)
		if err != nil {
			fail(err)
		}
		say(describe(x))
	case "jwt":
		source, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClientOptions(socket))
		if err != nil {
			fail(err)
		}
		defer source.Close()
		svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: os.Args[3]})
		if err != nil {
			fail(err)
		}
		parsed, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{os.Args[3]})
		if err != nil {
			fail(err)
		}
		if _, err = jwtsvid.ParseAndValidate(svid.Marshal(), jwtbundle.NewSet(), []string{os.Args[3]}); err == nil {
			fail(fmt.Errorf("validated without a bundle"))
		}
		remote, err := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), os.Args[3], socket)
		if err != nil {
			fail(err)
		}
		_, wrong := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), "somebody-else", socket)
		say(map[string]any{
			"event": "jwt", "id": parsed.ID.String(), "remote": remote.ID.String(), "audience": parsed.Audience,
			"wrongAudience": status.Code(wrong).String(),
		})
	case "watch":
		count, err := strconv.Atoi(os.Args[3])
		if err != nil {
			fail(err)
		}
		watching, done := context.WithCancel(ctx)
		_ = workloadapi.WatchX509Context(watching, &watcher{left: count, done: done}, socket)
	case "serve":
		peer := spiffeid.RequireFromString(os.Args[3])
		source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(socket))
		if err != nil {
			fail(err)
		}
		defer source.Close()
		listener, err := spiffetls.ListenWithMode(ctx, "tcp", "127.0.0.1:0",
			spiffetls.MTLSServerWithSource(tlsconfig.AuthorizeID(peer), source))
		if err != nil {
			fail(err)
		}
		say(map[string]any{"event": "listening", "address": listener.Addr().String()})
		for {
			connection, err := listener.Accept()
			if err != nil {
				fail(err)
			}
			if _, err = io.WriteString(connection, "hello\n"); err != nil {
				say(map[string]any{"event": "refused", "message": err.Error()})
			} else if id, err := spiffetls.PeerIDFromConn(connection); err == nil {
				say(map[string]any{"event": "peer", "id": id.String()})
			}
			connection.Close()
		}
	case "call":
		server := spiffeid.RequireFromString(os.Args[4])
		source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(socket))
		if err != nil {
			fail(err)
		}
		defer source.Close()
		connection, err := spiffetls.DialWithMode(ctx, "tcp", os.Args[3],
			spiffetls.MTLSClientWithSource(tlsconfig.AuthorizeID(server), source))
		if err != nil {
			fail(err)
		}
		defer connection.Close()
		greeting, err := io.ReadAll(connection)
		if err != nil {
			fail(err)
		}
		say(map[string]any{"event": "greeted", "text": string(greeting)})
	}
}
