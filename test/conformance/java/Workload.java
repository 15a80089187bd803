import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.WorkloadApiClient;
import java.time.Duration;

/**
 * Drives the Workload API with java-spiffe, unmodified, and says what it saw as one JSON line for each event.
 *
 * <p>{@code x509 SOCKET}: an X.509 source. {@code jwt SOCKET AUDIENCE}: a JWT source, and validation by the agent.
 */
public final class Workload {
  public static void main(String[] arguments) throws Exception {
    String socket = "unix:" + arguments[1];
    switch (arguments[0]) {
      case "x509" -> x509(socket);
      case "jwt" -> jwt(socket, arguments[2]);
      default -> throw new IllegalArgumentException(arguments[0]);
    }
    // Netty's threads would hold it up.
    System.exit(0);
  }

  private static void x509(String socket) throws Exception {
    var options =
        DefaultX509Source.X509SourceOptions.builder()
            .spiffeSocketPath(socket)
            .initTimeout(Duration.ofSeconds(20))
            .build();
    try (var source = DefaultX509Source.newSource(options)) {
      say("{\"event\":\"x509\",\"svids\":[%s]}", describe(source.getX509Svid()));
    }
  }

  private static void jwt(String socket, String audience) throws Exception {
    var options =
        JwtSourceOptions.builder()
            .spiffeSocketPath(socket)
            .initTimeout(Duration.ofSeconds(20))
            .build();
    try (var source = DefaultJwtSource.newSource(options);
        var client = newClient(socket)) {
      JwtSvid svid = source.fetchJwtSvid(audience);
      JwtSvid remote = client.validateJwtSvid(svid.getToken(), audience);
      say(
          "{\"event\":\"jwt\",\"id\":\"%s\",\"remote\":\"%s\",\"audience\":[\"%s\"]}",
          svid.getSpiffeId(), remote.getSpiffeId(), String.join("\",\"", svid.getAudience()));
    }
  }

  private static WorkloadApiClient newClient(String socket) throws Exception {
    return DefaultWorkloadApiClient.newClient(
        DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath(socket).build());
  }

  private static String describe(X509Svid svid) {
    return String.format(
        "{\"id\":\"%s\",\"serial\":\"%s\"}", svid.getSpiffeId(), svid.getLeaf().getSerialNumber());
  }

  private static void say(String format, Object... values) {
    System.out.println(String.format(format, values));
    System.out.flush();
  }
}
